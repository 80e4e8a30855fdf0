//! `--timeline`, and `Command::record`.

mod limited;
mod places;
mod runs;

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use crate::support::Stage;

/// A directory of its own, that goes when this does.
pub(super) struct Dir(pub(super) PathBuf);

impl Dir {
    pub(super) fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("tidy-timeline-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn tool(stage: &Stage, args: &[&str]) -> Output {
    stage.tool(args).output().unwrap()
}

pub(super) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(super) fn json(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The processes of a lane with this word in their command line.
pub(super) fn with_word<'a>(lane: &'a Value, word: &str) -> Vec<&'a Value> {
    let all = lane["processes"].as_array().unwrap().iter();
    all.filter(|span| span["command"].as_array().unwrap().iter().any(|it| it == word)).collect()
}

/// Python's own parsers: of XML strictly, of HTML.
pub(super) fn well_formed(path: &str) {
    let script = "import sys, xml.etree.ElementTree as tree
from html.parser import HTMLParser
text = open(sys.argv[1], encoding='utf-8').read()
if sys.argv[1].endswith('.svg'):
    root = tree.fromstring(text)
    assert root.tag == '{http://www.w3.org/2000/svg}svg', root.tag
else:
    picture = text[text.index('<svg'):text.index('</svg>') + 6]
    tree.fromstring(picture)
    class Page(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.tags = [], set()
        def handle_starttag(self, tag, attributes):
            self.tags.add(tag)
            for name, _ in attributes:
                assert not name.startswith('on') and name not in ('src', 'href')
            if tag not in ('meta',):
                self.open.append(tag)
        def handle_startendtag(self, tag, attributes):
            self.tags.add(tag)
        def handle_endtag(self, tag):
            assert self.open.pop() == tag, tag
    page = Page()
    page.feed(text)
    known = 'html head meta title style body h1 p b span svg g rect line path text details '
    known = (known + 'summary table tr th td div script').split()
    assert not page.open and page.tags <= set(known), (page.open, page.tags)
";
    let output = std::process::Command::new("python3").args(["-c", script, path]).output().unwrap();
    assert!(output.status.success(), "{path}: {}", said(&output));
}
