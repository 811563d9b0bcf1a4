//! `csrc/core`, exhaustively where that is possible.

use flyball::prng::Prng;
use flyball_simt::core::*;

#[test]
fn every_small_float_survives_a_round_trip() {
    for bits in 0..=u16::MAX {
        for (wide, back) in
            [(from_bf16(bits), to_bf16(from_bf16(bits))), (from_f16(bits), to_f16(from_f16(bits)))]
        {
            assert!(wide.is_nan() || back == bits, "{bits:#06x} is {wide} and becomes {back:#06x}");
        }
    }
    for bits in 0..=u8::MAX {
        let wide = from_e4m3(bits);
        assert_eq!(wide.is_nan(), bits & 0x7f == 0x7f, "{bits:#04x}");
        assert!(wide.is_nan() || to_e4m3(wide) == bits, "{bits:#04x} is {wide}");
    }
}

/// What bits mean, by the definition of the format.
fn meaning(bits: u32, exponent_bits: u32, mantissa_bits: u32) -> f64 {
    let mantissa = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
    let exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
    let bias = (1 << (exponent_bits - 1)) - 1;
    match exponent {
        0 => mantissa * 2f64.powi(1 - bias),
        _ => (1.0 + mantissa) * 2f64.powi(exponent as i32 - bias),
    }
}

#[test]
fn small_floats_mean_what_their_format_says() {
    for bits in 0..0x7f80_u16 {
        assert_eq!(f64::from(from_bf16(bits)), meaning(bits.into(), 8, 7), "{bits:#06x}");
    }
    for bits in 0..0x7c00_u16 {
        assert_eq!(f64::from(from_f16(bits)), meaning(bits.into(), 5, 10), "{bits:#06x}");
        assert_eq!(f64::from(from_f16(bits | 0x8000)), -meaning(bits.into(), 5, 10));
    }
    assert_eq!((from_f16(0x7c00), from_f16(0xfc00)), (f32::INFINITY, f32::NEG_INFINITY));
    for bits in 0..0x7f_u8 {
        assert_eq!(f64::from(from_e4m3(bits)), meaning(bits.into(), 4, 3), "{bits:#04x}");
        assert_eq!(f64::from(from_e4m3(bits | 0x80)), -meaning(bits.into(), 4, 3));
    }
}

/// Between two neighbours, the nearer one is taken, and at the middle the even one.
fn rounds_to_nearest_even(low: f32, high: f32, low_bits: u32, round: impl Fn(f32) -> u32) {
    let middle = ((f64::from(low) + f64::from(high)) / 2.0) as f32;
    assert_eq!(round(middle), low_bits + (low_bits & 1), "the middle of {low} and {high}");
    assert_eq!(round(middle.next_down()), low_bits, "below the middle of {low} and {high}");
    assert_eq!(round(middle.next_up()), low_bits + 1, "above the middle of {low} and {high}");
}

#[test]
fn conversions_round_to_nearest_even() {
    for bits in 0..0x7f7f_u16 {
        rounds_to_nearest_even(from_bf16(bits), from_bf16(bits + 1), bits.into(), |x| to_bf16(x).into());
    }
    for bits in 0..0x7bff_u16 {
        rounds_to_nearest_even(from_f16(bits), from_f16(bits + 1), bits.into(), |x| to_f16(x).into());
    }
    for bits in 0..0x7e_u8 {
        rounds_to_nearest_even(from_e4m3(bits), from_e4m3(bits + 1), bits.into(), |x| to_e4m3(x).into());
    }
}

#[test]
fn what_is_too_large_is_infinite_or_saturates() {
    assert_eq!((to_bf16(f32::MAX), to_f16(65520.0), to_f16(65519.0)), (0x7f80, 0x7c00, 0x7bff));
    for large in [449.0, 464.0, 480.0, 1e30, f32::INFINITY] {
        assert_eq!((to_e4m3(large), to_e4m3(-large)), (0x7e, 0xfe), "{large}");
    }
    assert!(from_bf16(to_bf16(f32::NAN)).is_nan() && from_f16(to_f16(-f32::NAN)).is_nan());
    assert!(from_e4m3(to_e4m3(f32::NAN)).is_nan());
    assert_eq!((to_e4m3(-0.0), to_f16(-0.0), to_f16(1e-10), to_e4m3(1e-10)), (0x80, 0x8000, 0, 0));
}

#[test]
fn parts_of_a_softmax_merge_to_the_whole() {
    let empty = Softmax { max: f32::NEG_INFINITY, sum: 0.0 };
    let one = Softmax { max: -3e4, sum: 2.5 };
    assert_eq!((merge(empty, one), merge(one, empty), merge(empty, empty)), (one, one, empty));
    assert_eq!((normalizer(empty), lse(empty)), (0.0, f32::NEG_INFINITY));
    let far = merge(Softmax { max: 1e4, sum: 1.0 }, one);
    assert_eq!(far, Softmax { max: 1e4, sum: 1.0 }, "what is 4e4 powers of two smaller vanishes");
    let halves = merge(Softmax { max: 5.0, sum: 3.0 }, Softmax { max: 3.0, sum: 4.0 });
    assert_eq!(halves, Softmax { max: 5.0, sum: 4.0 });
    assert!((lse(halves) - 7.0 * std::f32::consts::LN_2).abs() < 1e-6);
}

/// The known answers that come with Random123, the authors' own implementation.
#[test]
fn philox_gives_its_authors_answers() {
    let cases = [
        ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
        (
            [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
            [0xa4093822, 0x299f31d0],
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
        ),
    ];
    for (counter, key, word) in cases {
        assert_eq!(philox(Random4 { word: counter }, key[0], key[1]), Random4 { word });
    }
    assert!(uniform(0) > 0.0 && uniform(u32::MAX) < 1.0);
}

#[test]
fn rope_turns_by_the_right_angle_however_far() {
    let plain = RopeScaling {
        factor: 1.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_context: 8192.0,
    };
    let llama = RopeScaling { factor: 8.0, ..plain };
    for (scaling, theta) in [(plain, 1e4), (llama, 5e5)] {
        for pair in 0..64 {
            let mut frequency = f64::powf(theta, -f64::from(pair) / 64.0);
            // As in Meta's reference: by wavelength.
            let wavelength = std::f64::consts::TAU / frequency;
            if scaling.factor != 1.0 && wavelength > 8192.0 {
                frequency /= 8.0;
            } else if scaling.factor != 1.0 && wavelength > 2048.0 {
                let smooth = (8192.0 / wavelength - 1.0) / 3.0;
                frequency *= (1.0 - smooth) / 8.0 + smooth;
            }
            let turns = rope_turns(pair, 128, theta, scaling);
            for position in [0, 1, 4095, 131_071, 1_000_000] {
                let angle = frequency * f64::from(position);
                let rotation = rotation(turns, position);
                let off = (f64::from(rotation.cosine) - angle.cos()).abs()
                    + (f64::from(rotation.sine) - angle.sin()).abs();
                assert!(off < 5e-7, "pair {pair} at {position}: off by {off}");
            }
        }
    }
}

#[test]
fn a_chunk_after_a_prefix_sees_up_to_itself() {
    for (prefix, chunk) in [(0, 1), (0, 5), (7, 1), (7, 16), (100, 3)] {
        for query in 0..chunk {
            assert_eq!(visible_keys(query, chunk, prefix + chunk), prefix + query + 1);
        }
    }
    assert_eq!((visible_keys(0, 5, 3), visible_keys(4, 5, 3), visible_keys(0, 1, 0)), (0, 3, 0));
}

#[test]
fn chunks_tile_every_row_at_fixed_multiples() {
    let mut prng = Prng::new(5);
    for _ in 0..500 {
        let chunk = 64 * prng.between(1, 8) as u32;
        let lengths: Vec<u32> = (0..prng.between(1, 40)).map(|_| prng.below(3000) as u32).collect();
        let mut from = Vec::new();
        let mut items = 0;
        for length in &lengths {
            from.push(items);
            items += chunk_count(*length, chunk);
        }
        let mut covered = vec![0; lengths.len()];
        for item in 0..items {
            let row = row_of(item, &from);
            let span = chunk_span(item - from[row], lengths[row], chunk);
            assert_eq!((span.begin, span.begin % chunk), (covered[row], 0));
            assert!(span.end - span.begin <= chunk);
            covered[row] = span.end;
        }
        assert_eq!(covered, lengths);
    }
}
