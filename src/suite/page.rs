//! A suite's document as one page of HTML that needs nothing else.

use super::document::{Block, Document, Figure};
use crate::report::format::escape;
use crate::report::page::shell;
use std::fmt::Write as _;

/// The page of a document.
pub fn html(document: &Document) -> String {
    let mut body = String::new();
    for section in &document.sections {
        let _ = writeln!(body, "<h2>{}</h2>", escape(&section.title));
        section.blocks.iter().for_each(|b| body += &block(b));
    }
    shell(&document.title, &body)
}

fn block(block: &Block) -> String {
    match block {
        Block::Text(text) => format!("<p class=\"soft\">{}</p>\n", escape(text)),
        Block::Table { header, rows } => table(header, rows),
        Block::Figures(all) => {
            format!("<div class=\"charts\">\n{}</div>\n", all.iter().map(figure).collect::<String>())
        }
        Block::Markup(markup) => markup.clone(),
    }
}

fn figure(figure: &Figure) -> String {
    let (title, note) = (escape(&figure.title), escape(&figure.note));
    let note = if note.is_empty() { note } else { format!("<p>{note}</p>\n") };
    format!("<figure>\n<figcaption>{title}</figcaption>\n{}{note}</figure>\n", figure.svg)
}

fn table(header: &[String], rows: &[Vec<String>]) -> String {
    let head: String = header.iter().map(|h| format!("<th>{}</th>", escape(h))).collect();
    let row = |cells: &Vec<String>| {
        let cells = cells.iter().enumerate().map(|(i, cell)| match i {
            0 => format!("<th>{}</th>", escape(cell)),
            _ => format!("<td>{}</td>", escape(cell)),
        });
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let rows: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"wide\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::document::Section;

    #[test]
    fn a_page_has_no_foreign_markup_and_no_network() {
        let section = Section::new("<b>").text("a < b").table(["x"], vec![vec!["http://y".into()]]);
        let page = html(&Document { title: "t".into(), sections: vec![section] });
        assert!(page.contains("<h2>&lt;b&gt;</h2>") && page.contains("a &lt; b"));
        assert!(!page.contains("http://") && page.ends_with("</html>\n"));
    }
}
