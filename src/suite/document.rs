//! What a suite has to say: sections of text, tables and drawings. A terminal shows the words, a page all.

use crate::report::table;

/// A suite's findings, in the order in which they are read.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// What it is.
    pub title: String,
    /// Its parts.
    pub sections: Vec<Section>,
}

/// One part.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// What it holds.
    pub blocks: Vec<Block>,
}

/// One thing to read or to look at.
#[derive(Clone, Debug)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// A table; its first column names the rows.
    Table {
        /// Heads of the columns.
        header: Vec<String>,
        /// The rows.
        rows: Vec<Vec<String>>,
    },
    /// Drawings side by side, on a page only.
    Figures(Vec<Figure>),
    /// Markup that only a page has.
    Markup(String),
}

/// A drawing.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it shows, with the unit.
    pub title: String,
    /// What to know about it; may be empty.
    pub note: String,
    /// The drawing.
    pub svg: String,
}

impl Section {
    /// An empty part.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), blocks: Vec::new() }
    }

    /// Adds a paragraph.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.blocks.push(Block::Text(text.into()));
        self
    }

    /// Adds a table.
    #[must_use]
    pub fn table<S: Into<String>>(
        mut self,
        header: impl IntoIterator<Item = S>,
        rows: Vec<Vec<String>>,
    ) -> Self {
        let header = header.into_iter().map(Into::into).collect();
        self.blocks.push(Block::Table { header, rows });
        self
    }

    /// Adds drawings.
    #[must_use]
    pub fn figures(mut self, figures: Vec<Figure>) -> Self {
        self.blocks.push(Block::Figures(figures));
        self
    }

    /// Adds markup for the page.
    #[must_use]
    pub fn markup(mut self, markup: String) -> Self {
        self.blocks.push(Block::Markup(markup));
        self
    }
}

impl Document {
    /// As a terminal shows it: without the sections that only draw.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n{}\n", self.title, "═".repeat(self.title.chars().count()));
        let drawing = |block: &Block| matches!(block, Block::Figures(_) | Block::Markup(_));
        let tables = |section: &&Section| {
            section.blocks.iter().any(|block| matches!(block, Block::Table { .. }))
                || !section.blocks.iter().any(drawing)
        };
        for section in self.sections.iter().filter(tables) {
            out += &format!("\n{}\n", section.title);
            for block in &section.blocks {
                out += &words(block);
            }
        }
        out
    }
}

fn words(block: &Block) -> String {
    match block {
        Block::Text(text) => format!("\n{}\n", wrapped(text)),
        Block::Table { header, rows } => {
            let header: Vec<&str> = header.iter().map(String::as_str).collect();
            format!("\n{}", table(&header, rows))
        }
        Block::Figures(_) | Block::Markup(_) => String::new(),
    }
}

/// Width of paragraphs in a terminal.
const WIDTH: usize = 110;

fn wrapped(text: &str) -> String {
    let (mut out, mut width) = (String::new(), 0);
    for word in text.split_whitespace() {
        let more = word.chars().count();
        if width > 0 && width + 1 + more > WIDTH {
            out.push('\n');
            width = 0;
        } else if width > 0 {
            out.push(' ');
            width += 1;
        }
        out += word;
        width += more;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_reads_in_order() {
        let section = Section::new("Part")
            .text("Some words.")
            .table(["arm", "P99"], vec![vec!["fcfs".into(), "1.00 s".into()]]);
        let text = Document { title: "All".into(), sections: vec![section] }.text();
        let want = "All\n═══\n\nPart\n\nSome words.\n\narm      P99\n────  ──────\nfcfs  1.00 s\n";
        assert_eq!(text, want);
    }

    #[test]
    fn long_paragraphs_are_wrapped() {
        let text = wrapped(&"word ".repeat(50));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH) && text.lines().count() == 3);
    }
}
