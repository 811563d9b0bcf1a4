//! Models from folders in the Hugging Face format: `config.json`, and weights in one safetensors file or in several
//! with an index.

use super::safetensors::TensorFile;
use super::weights::{EMBEDDING, Source};
use super::{Model, ModelConfig, ModelError, Rope, RopeScaling, RopeStyle, Tensor, Weights, open};
use crate::number::Dtype;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

/// What is read of `config.json`; its names are those of the transformers library.
#[derive(Debug, Deserialize)]
struct Description {
    model_type: String,
    num_hidden_layers: u32,
    hidden_size: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    intermediate_size: u32,
    vocab_size: u32,
    max_position_embeddings: u32,
    rms_norm_eps: f32,
    rope_theta: Option<f64>,
    rope_scaling: Option<Scaling>,
    /// Both of them, in newer files.
    rope_parameters: Option<Scaling>,
    partial_rotary_factor: Option<f64>,
    #[serde(default)]
    tie_word_embeddings: bool,
    torch_dtype: Option<String>,
    /// The same, in newer files.
    dtype: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: Option<String>,
    /// Null is none; where it is absent, it is what transformers has for Mistral and Qwen3.
    #[serde(default = "window_default")]
    sliding_window: Option<u32>,
    use_sliding_window: Option<bool>,
}

fn window_default() -> Option<u32> {
    Some(4096)
}

#[derive(Debug, Default, PartialEq, Deserialize)]
struct Scaling {
    rope_type: Option<String>,
    /// The same, in older files.
    #[serde(rename = "type")]
    older_type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Model {
    /// Reads a model from a folder. Its weights become what `config.json` says, bf16 or f16; if it says nothing, what
    /// the embedding is stored as. What would be f32 becomes bf16: executors have no wider weights.
    ///
    /// # Errors
    /// If a file is missing or not what it should be, or if the model is of a kind that is not supported.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let description: Description = json(&folder.join("config.json"))?;
        description.supported()?;
        let files = Files::open(folder)?;
        let config = description.config(files.dtype()?)?;
        config.check()?;
        let weights = Weights::collect(&config, &mut Converted { files, dtype: config.dtype })?;
        Ok(Self { config, weights })
    }
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let name = || path.display().to_string();
    let text = io::read_to_string(open(path)?).map_err(|source| ModelError::Io { path: name(), source })?;
    serde_json::from_str(&text).map_err(|error| ModelError::Format { path: name(), what: error.to_string() })
}

/// The files with a model's weights.
struct Files {
    /// The shard of every tensor.
    index: BTreeMap<String, String>,
    /// By their names.
    shards: BTreeMap<String, TensorFile>,
}

impl Files {
    /// Opens the only file of a folder, or those that its index names.
    fn open(folder: &Path) -> Result<Self, ModelError> {
        let single = "model.safetensors";
        if folder.join(single).exists() {
            let file = TensorFile::open(&folder.join(single))?;
            let index = file.names().map(|name| (name.into(), single.into())).collect();
            return Ok(Self { index, shards: [(single.into(), file)].into() });
        }
        let path = folder.join("model.safetensors.index.json");
        let Index { weight_map: index } = json(&path)?;
        let names: BTreeSet<_> = index.values().collect();
        let open = |name: &String| Ok((name.clone(), TensorFile::open(&beside(&path, name)?)?));
        let shards = names.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { index, shards })
    }

    /// What weights are where nobody says it.
    fn dtype(&self) -> Result<Dtype, ModelError> {
        let stored = self.of(EMBEDDING)?.dtype(EMBEDDING)?;
        Ok(if stored == "F16" { Dtype::F16 } else { Dtype::Bf16 })
    }

    /// The file with this tensor.
    fn of(&self, tensor: &str) -> Result<&TensorFile, ModelError> {
        let shard = self.index.get(tensor).and_then(|shard| self.shards.get(shard));
        shard.ok_or_else(|| ModelError::Missing(tensor.into()))
    }
}

/// The file of this name in the folder of `index`, which names it. A name that leads elsewhere is refused: an index is
/// downloaded.
fn beside(index: &Path, name: &str) -> Result<PathBuf, ModelError> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) => Ok(index.with_file_name(name)),
        _ => Err(ModelError::Format {
            path: index.display().to_string(),
            what: format!("weight_map names {name:?}, which is no file beside it"),
        }),
    }
}

/// Tensors of files as one type.
struct Converted {
    files: Files,
    dtype: Dtype,
}

impl Source for Converted {
    fn take(&mut self, names: &[String], rows: &[usize], columns: usize) -> Result<Tensor, ModelError> {
        // First of all parts: the sizes come from the description, and memory is taken for what files have.
        for (name, rows) in names.iter().zip(rows) {
            self.files.of(name)?.check(name, &[*rows, columns])?;
        }
        let all = rows.iter().sum();
        let mut bits = Vec::with_capacity(all * columns);
        for name in names {
            self.files.of(name)?.read(name, self.dtype, &mut bits)?;
        }
        Tensor::new(&names[0], all, columns, bits)
    }
}

impl Description {
    /// The decoder, with weights of the type `stored` if the description names none.
    fn config(&self, stored: Dtype) -> Result<ModelConfig, ModelError> {
        let heads_q = self.num_attention_heads;
        let dtype = match either(["dtype", "torch_dtype"], [&self.dtype, &self.torch_dtype])? {
            None => stored,
            Some("float16") => Dtype::F16,
            Some("bfloat16" | "float32") => Dtype::Bf16,
            Some(other) => {
                let known = "bfloat16, float16 and float32 are known";
                return Err(ModelError::Unsupported(format!("dtype {other:?}; {known}")));
            }
        };
        Ok(ModelConfig {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            heads_q,
            heads_kv: self.num_key_value_heads.unwrap_or(heads_q),
            head_dim: self.head_dim.unwrap_or(self.hidden_size / heads_q.max(1)),
            intermediate: self.intermediate_size,
            vocab: self.vocab_size,
            context: self.max_position_embeddings,
            norm_epsilon: self.rms_norm_eps,
            rope: self.rope()?,
            qk_norm: self.model_type == "qwen3",
            tied: self.tie_word_embeddings,
            dtype,
        })
    }

    /// Whether a decoder of ours computes what this one does.
    fn supported(&self) -> Result<(), ModelError> {
        let window = self.window().filter(|window| *window < self.max_position_embeddings);
        let wrong = match () {
            () if !["llama", "mistral", "qwen3"].contains(&self.model_type.as_str()) => {
                format!("model_type {:?}; llama, mistral and qwen3 are known", self.model_type)
            }
            () if self.attention_bias || self.mlp_bias => "it has biases".into(),
            () if self.hidden_act.as_deref().is_some_and(|act| act != "silu") => {
                format!("hidden_act {:?}; silu is known", self.hidden_act.as_deref().unwrap_or_default())
            }
            () if window.is_some() => {
                format!("it has a sliding window of {} tokens", window.unwrap_or_default())
            }
            () => return Ok(()),
        };
        Err(ModelError::Unsupported(wrong))
    }

    /// The tokens that attention sees, if they are fewer than all: by the rules of the model's own class in
    /// transformers. Llama has none, Mistral knows no switch for it.
    fn window(&self) -> Option<u32> {
        match self.model_type.as_str() {
            "mistral" => self.sliding_window,
            "qwen3" if self.use_sliding_window == Some(true) => self.sliding_window,
            _ => None,
        }
    }

    fn rope(&self) -> Result<Rope, ModelError> {
        // Where both are, what counts in transformers is the older one.
        let given = [&self.rope_scaling, &self.rope_parameters].into_iter().flatten();
        let partial = given.clone().map(|s| s.partial_rotary_factor).chain([self.partial_rotary_factor]);
        if let Some(share) = partial.flatten().find(|share| *share != 1.0) {
            return Err(ModelError::Unsupported(format!("partial_rotary_factor {share}; 1 is known")));
        }
        let theta = given.clone().find_map(|s| s.rope_theta).or(self.rope_theta).unwrap_or(1e4);
        let scaling = given.clone().find(|s| **s != Scaling::default());
        let scaling = scaling.map(Scaling::read).transpose()?.flatten();
        Ok(Rope { theta, style: RopeStyle::NeoX, scaling })
    }
}

impl Scaling {
    fn read(&self) -> Result<Option<RopeScaling>, ModelError> {
        match either(["rope_type", "type"], [&self.rope_type, &self.older_type])? {
            None | Some("default") => Ok(None),
            Some("llama3") => {
                let given = |name: &str, value: Option<f64>| {
                    value.ok_or_else(|| ModelError::Unsupported(format!("rope scaling without {name}")))
                };
                let context = self.original_max_position_embeddings;
                Ok(Some(RopeScaling {
                    factor: given("factor", self.factor)?,
                    low_frequency_factor: given("low_freq_factor", self.low_freq_factor)?,
                    high_frequency_factor: given("high_freq_factor", self.high_freq_factor)?,
                    original_context: given("original_max_position_embeddings", context)?,
                }))
            }
            Some(other) => {
                Err(ModelError::Unsupported(format!("rope scaling {other:?}; default and llama3 are known")))
            }
        }
    }
}

/// What stands under one of two names, or the same under both. Versions of transformers differ in which of them
/// counts.
fn either<'a>(names: [&str; 2], values: [&'a Option<String>; 2]) -> Result<Option<&'a str>, ModelError> {
    match values.map(Option::as_deref) {
        [Some(one), Some(other)] if one != other => {
            let [name, second] = names;
            Err(ModelError::Unsupported(format!("{name} is {one:?}, but {second} is {other:?}")))
        }
        [one, other] => Ok(one.or(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny;
    use crate::number::{from_bf16, from_f16};
    use serde_json::{Value, json};
    use std::fs;
    use tempfile::TempDir;

    fn description() -> Value {
        json!({
            "model_type": "qwen3", "num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 8,
            "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 96, "vocab_size": 256,
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "rope_scaling": null,
            "tie_word_embeddings": false, "torch_dtype": "bfloat16", "hidden_act": "silu",
            "sliding_window": null, "use_sliding_window": false, "bos_token_id": 1,
        })
    }

    /// A name, a shape, bits.
    type Part = (String, Vec<usize>, Vec<u16>);

    /// The parts of a model as a checkpoint has them.
    fn parts(model: &Model) -> Vec<Part> {
        let config = model.config();
        let (q, kv, mlp) = (config.q_width(), config.kv_width(), config.intermediate as usize);
        let mut parts = Vec::new();
        for tensor in model.weights().tensors() {
            let split: Vec<(&str, usize)> = match tensor.name() {
                name if name.contains("q_proj") => vec![("q_proj", q), ("k_proj", kv), ("v_proj", kv)],
                name if name.contains("gate_proj") => vec![("gate_proj", mlp), ("up_proj", mlp)],
                _ => vec![("", tensor.rows())],
            };
            let (first, mut row) = (split[0].0, 0);
            for (part, rows) in split {
                let bits = tensor.bits()[row * tensor.columns()..][..rows * tensor.columns()].to_vec();
                let shape = if rows == 1 { vec![tensor.columns()] } else { vec![rows, tensor.columns()] };
                parts.push((tensor.name().replace(first, part), shape, bits));
                row += rows;
            }
        }
        parts
    }

    /// A file of these parts, stored as this type; bits that become f32 are bf16.
    fn write(path: &Path, parts: &[Part], dtype: &str) {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        for (name, shape, bits) in parts {
            let begin = data.len();
            for bits in bits {
                match dtype {
                    "F32" => data.extend(from_bf16(*bits).to_le_bytes()),
                    _ => data.extend(bits.to_le_bytes()),
                }
            }
            let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
            header.insert(name.clone(), entry);
        }
        let header = serde_json::to_vec(&header).unwrap();
        let length = (header.len() as u64).to_le_bytes();
        fs::write(path, [&length[..], &header, &data].concat()).unwrap();
    }

    fn folder(description: &Value) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), description.to_string()).unwrap();
        folder
    }

    #[test]
    fn a_model_is_read_as_it_was_written() {
        let model = Model::random(tiny(), 9).unwrap();
        let parts = parts(&model);
        for dtype in ["BF16", "F32"] {
            let folder = folder(&description());
            write(&folder.path().join("model.safetensors"), &parts, dtype);
            assert_eq!(Model::load(folder.path()).unwrap(), model);
        }
        let folder = folder(&description());
        let (one, two) = parts.split_at(parts.len() / 2);
        shards(folder.path(), &[("model-1.safetensors", one), ("model-2.safetensors", two)]);
        assert_eq!(Model::load(folder.path()).unwrap(), model);
    }

    /// Files of these names and parts, and their index. Of parts that are there twice, it names the last.
    fn shards(folder: &Path, shards: &[(&str, &[Part])]) {
        let mut map = BTreeMap::new();
        for (name, parts) in shards {
            write(&folder.join(name), parts, "BF16");
            map.extend(parts.iter().map(|(part, ..)| (part, *name)));
        }
        index(folder, json!(map));
    }

    fn index(folder: &Path, map: Value) {
        let index = json!({"metadata": {}, "weight_map": map}).to_string();
        fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    }

    #[test]
    fn a_tensor_is_taken_from_the_shard_that_the_index_says() {
        let [model, other] = [9, 10].map(|seed| Model::random(tiny(), seed).unwrap());
        let (parts, others) = (parts(&model), parts(&other));
        let folder = folder(&description());
        shards(folder.path(), &[("a.safetensors", &others), ("b.safetensors", &parts)]);
        assert_eq!(Model::load(folder.path()).unwrap(), model);
    }

    #[test]
    fn an_index_that_leads_out_of_its_folder_is_refused() {
        let parts = parts(&Model::random(tiny(), 9).unwrap());
        let folder = folder(&description());
        write(&folder.path().join("real.safetensors"), &parts, "BF16");
        let absolute = folder.path().join("real.safetensors").display().to_string();
        let around = format!("../{}/real.safetensors", folder.path().file_name().unwrap().display());
        for name in [&absolute, &around, "./real.safetensors", "..", ""] {
            let names = parts.iter().map(|(part, ..)| (part.clone(), json!(name)));
            index(folder.path(), Value::Object(names.collect()));
            let error = Model::load(folder.path()).unwrap_err().to_string();
            let reason = format!("index.json: weight_map names {name:?}, which is no file beside it");
            assert!(error.ends_with(&reason), "{error}");
        }
    }

    /// A description of 2^18 tokens of 2^16 elements took 32 GiB before it saw that the file had ten bytes.
    #[test]
    fn no_memory_is_taken_for_weights_that_files_do_not_have() {
        let parts = parts(&Model::random(tiny(), 9).unwrap());
        let folder = folder(&description());
        write(&folder.path().join("model.safetensors"), &parts, "BF16");
        let files = Files::open(folder.path()).unwrap();
        let mut source = Converted { files, dtype: Dtype::Bf16 };
        let mut error = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
            // More than there are addresses.
            source.take(&names, &vec![1 << 60; names.len()], 64).unwrap_err().to_string()
        };
        let head = "lm_head.weight";
        assert!(error(&[head]).contains("has shape [256, 64], but [1152921504606846976, 64] is needed"));
        assert_eq!(error(&["absent", head]), "weight \"absent\" is missing");
    }

    #[test]
    fn weights_become_what_the_description_says() {
        let model = Model::random(tiny(), 9).unwrap();
        let mut description = description();
        description["torch_dtype"] = "float16".into();
        let folder = folder(&description);
        write(&folder.path().join("model.safetensors"), &parts(&model), "BF16");
        let half = Model::load(folder.path()).unwrap();
        let pairs = half.weights().lm_head().bits().iter().zip(model.weights().lm_head().bits());
        // A bf16 of usual size is an f16 too.
        pairs.for_each(|(half, bf16)| {
            let (half, bf16) = (from_f16(*half), from_bf16(*bf16));
            assert!((half - bf16).abs() <= 2f32.powi(-25), "{half} and {bf16}");
        });
    }

    /// Weights in f16 became bf16, and lost three bits, if `config.json` did not name a type.
    #[test]
    fn weights_stay_what_they_are_where_no_type_is_named() {
        for (dtype, stored) in [(Dtype::F16, "F16"), (Dtype::Bf16, "BF16"), (Dtype::Bf16, "F32")] {
            let model = Model::random(ModelConfig { dtype, ..tiny() }, 9).unwrap();
            let folder = folder(&with(json!({"torch_dtype": null})));
            write(&folder.path().join("model.safetensors"), &parts(&model), stored);
            assert_eq!(Model::load(folder.path()).unwrap(), model, "{stored}");
        }
        assert_eq!(read(with(json!({"torch_dtype": "float32"}))).unwrap(), tiny());
    }

    #[test]
    fn every_wrong_checkpoint_is_refused_with_its_reason() {
        let model = Model::random(tiny(), 9).unwrap();
        let error = |parts: &[Part], description: &Value| {
            let folder = folder(description);
            write(&folder.path().join("model.safetensors"), parts, "BF16");
            Model::load(folder.path()).unwrap_err().to_string()
        };
        let whole = parts(&model);
        assert_eq!(error(&whole[1..], &description()), "weight \"model.embed_tokens.weight\" is missing");
        let mut turned = whole.clone();
        turned[0].1.reverse();
        assert!(error(&turned, &description()).contains("has shape [64, 256], but [256, 64] is needed"));
        let mut short = whole.clone();
        short[0].2.pop();
        assert!(error(&short, &description()).contains("model.embed_tokens.weight: bytes 0 to 32766"));
        for (field, value, reason) in [
            ("model_type", json!("gpt2"), "model_type \"gpt2\"; llama, mistral and qwen3 are known"),
            ("attention_bias", json!(true), "it has biases"),
            ("hidden_act", json!("gelu"), "hidden_act \"gelu\""),
            ("torch_dtype", json!("int8"), "dtype \"int8\"; bfloat16, float16 and float32 are known"),
            ("rope_scaling", json!({"type": "yarn", "factor": 4.0}), "rope scaling \"yarn\""),
            ("head_dim", json!(72), "head_dim is 72"),
            ("vocab_size", json!(-1), "config.json"),
        ] {
            let mut description = description();
            description[field] = value;
            let error = error(&whole, &description);
            assert!(error.contains(reason), "{field}: {error}");
        }
        let mut windowed = description();
        (windowed["sliding_window"], windowed["use_sliding_window"]) = (json!(1024), json!(true));
        assert!(error(&whole, &windowed).contains("it has a sliding window of 1024 tokens"));
        let empty = tempfile::tempdir().unwrap();
        assert!(Model::load(empty.path()).unwrap_err().to_string().contains("config.json"));
    }

    #[cfg(unix)]
    #[test]
    fn a_description_that_is_no_regular_file_is_refused_unopened() {
        for target in ["/dev/null", "/dev"] {
            let folder = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink(target, folder.path().join("config.json")).unwrap();
            let error = Model::load(folder.path()).unwrap_err().to_string();
            assert!(error.ends_with("config.json: it is no regular file"), "{error}");
        }
    }

    fn read(value: Value) -> Result<ModelConfig, String> {
        let description: Description = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let config = description.supported().and_then(|()| description.config(Dtype::Bf16));
        config.map_err(|error| error.to_string())
    }

    /// The description with these fields.
    fn with(fields: Value) -> Value {
        let mut description = description();
        let object = description.as_object_mut().unwrap();
        object.extend(fields.as_object().unwrap().clone());
        description
    }

    #[test]
    fn descriptions_are_read_with_their_defaults() {
        assert_eq!(read(description()).unwrap(), tiny());
        let mut llama = with(json!({"model_type": "llama", "hidden_size": 512, "rope_parameters": llama3()}));
        let object = llama.as_object_mut().unwrap();
        for name in ["head_dim", "num_key_value_heads", "rope_theta", "rope_scaling"] {
            object.remove(name);
        }
        let config = read(llama).unwrap();
        assert_eq!((config.head_dim, config.heads_kv, config.qk_norm), (64, 8, false));
        assert_eq!((config.rope.theta, config.rope.scaling.unwrap().factor), (5e5, 8.0));
    }

    fn llama3() -> Value {
        json!({
            "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        })
    }

    /// A Qwen3 that transformers 5 had saved, to which somebody added the `rope_scaling` of its model card, was read
    /// as one without a scaling.
    #[test]
    fn rope_scaling_counts_before_rope_parameters() {
        let plain = json!({"rope_type": "default", "rope_theta": 1e6});
        let both = |scaling: Value| read(with(json!({"rope_parameters": plain, "rope_scaling": scaling})));
        let error = both(json!({"rope_type": "yarn", "factor": 4.0})).unwrap_err();
        assert!(error.contains("rope scaling \"yarn\""), "{error}");
        let mut scaling = llama3();
        scaling.as_object_mut().unwrap().remove("rope_theta");
        let rope = both(scaling).unwrap().rope;
        assert_eq!((rope.theta, rope.scaling.unwrap().factor), (1e6, 8.0));
        for nothing in [json!(null), json!({})] {
            let rope = both(nothing).unwrap().rope;
            assert_eq!((rope.theta, rope.scaling), (1e6, None));
        }
    }

    #[test]
    fn a_field_may_stand_under_its_old_name_and_its_new_one() {
        let mut scaling = llama3();
        scaling["type"] = "llama3".into();
        let fields = json!({"dtype": "float16", "torch_dtype": "float16", "rope_scaling": scaling});
        let config = read(with(fields)).unwrap();
        assert_eq!((config.dtype, config.rope.scaling.unwrap().factor), (Dtype::F16, 8.0));
        // No name is the default one.
        assert_eq!(read(with(json!({"rope_parameters": {"rope_theta": 1e4}}))).unwrap(), tiny());
        for (fields, reason) in [
            (json!({"dtype": "float16"}), "dtype is \"float16\", but torch_dtype is \"bfloat16\""),
            (
                json!({"rope_scaling": {"rope_type": "default", "type": "mrope"}}),
                "rope_type is \"default\", but type is \"mrope\"",
            ),
        ] {
            let error = read(with(fields)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn windows_are_those_of_the_model_s_own_class() {
        let refused = |model: &str, window: Option<Value>, switch: Option<bool>| {
            let mut fields = with(json!({"model_type": model, "use_sliding_window": switch}));
            match window {
                Some(window) => fields["sliding_window"] = window,
                None => drop(fields.as_object_mut().unwrap().remove("sliding_window")),
            }
            // One more than the window that Mistral and Qwen3 have by default.
            fields["max_position_embeddings"] = 4097.into();
            read(fields).is_err_and(|error| error.contains("it has a sliding window"))
        };
        let [short, whole, null] = [json!(4096), json!(4097), json!(null)].map(Some);
        for (window, windowed) in [(&None, true), (&null, false), (&short, true), (&whole, false)] {
            // Mistral knows no switch.
            for switch in [None, Some(false), Some(true)] {
                assert_eq!(refused("mistral", window.clone(), switch), windowed, "{window:?} {switch:?}");
                let on = switch == Some(true);
                assert_eq!(refused("qwen3", window.clone(), switch), windowed && on, "{window:?} {switch:?}");
                assert!(!refused("llama", window.clone(), switch));
            }
        }
    }

    #[test]
    fn heads_that_turn_in_part_are_refused() {
        for fields in [
            json!({"partial_rotary_factor": 0.5}),
            json!({"rope_scaling": {"partial_rotary_factor": 0.5}}),
            json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
        ] {
            let error = read(with(fields)).unwrap_err();
            assert!(error.contains("partial_rotary_factor 0.5; 1 is known"), "{error}");
        }
        assert_eq!(read(with(json!({"partial_rotary_factor": 1.0}))).unwrap(), tiny());
    }
}
