//! Chosen columns of a CSV file, found by the names in its header.

use std::borrow::Cow;

/// Where `N` named columns stand.
pub struct Columns<const N: usize> {
    names: [&'static str; N],
    places: [usize; N],
}

/// The place of a column in a header.
pub fn place(header: &str, name: &str) -> Option<usize> {
    let header = quoted(header).ok()?;
    header.iter().position(|field| field.trim().trim_matches('"') == name)
}

impl<const N: usize> Columns<N> {
    /// # Errors
    /// The first name that the header lacks.
    pub fn find(header: &str, names: [&'static str; N]) -> Result<Self, String> {
        let mut places = [0; N];
        for (slot, name) in places.iter_mut().zip(names) {
            *slot = place(header, name).ok_or(format!("the header has no column {name:?}"))?;
        }
        Ok(Self { names, places })
    }

    /// The chosen fields of a line, trimmed, in the order in which they were named.
    ///
    /// # Errors
    /// The first column that the line is too short for.
    pub fn fields<'l>(&self, line: &'l str) -> Result<[Cow<'l, str>; N], String> {
        let mut fields = [const { None }; N];
        let mut width = 0;
        let mut put = |field: Cow<'l, str>| {
            for (slot, &place) in fields.iter_mut().zip(&self.places) {
                if place == width {
                    *slot = Some(field.clone());
                }
            }
            width += 1;
        };
        if line.contains('"') {
            quoted(line)?.iter().for_each(|field| put(Cow::Owned(field.trim().to_owned())));
        } else {
            line.split(',').for_each(|field| put(Cow::Borrowed(field.trim())));
        }
        if let Some(missing) = fields.iter().position(Option::is_none) {
            let (name, place) = (self.names[missing], self.places[missing] + 1);
            return Err(format!("has {width} columns, but {name} is column {place}"));
        }
        Ok(fields.map(|field| field.expect("a missing field was refused above")))
    }
}

/// The fields of a line with quotes; a quoted line end is not supported.
fn quoted(line: &str) -> Result<csv::StringRecord, String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    let mut record = csv::StringRecord::new();
    match reader.read_record(&mut record) {
        Ok(true) => Ok(record),
        Ok(false) => Err("has no columns".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_trimmed() {
        let columns = Columns::find("x, b ,\"a\"", ["a", "b"]).unwrap();
        assert_eq!(columns.fields("1, 2 ,3").unwrap(), ["3", "2"]);
        assert_eq!(columns.fields("\"1,5\",2,\"3\"").unwrap(), ["3", "2"]);
        assert_eq!(columns.fields("1,2").unwrap_err(), "has 2 columns, but a is column 3");
        assert_eq!(columns.fields("1,2,").unwrap(), ["", "2"]);
        let quoted = Columns::find("\"x, y\",a, \"b\"", ["a", "b"]).unwrap();
        assert_eq!(quoted.fields("\"1,5\",2,3").unwrap(), ["2", "3"]);
        let error = Columns::find("x,y", ["a"]).err().unwrap();
        assert_eq!(error, "the header has no column \"a\"");
    }
}
