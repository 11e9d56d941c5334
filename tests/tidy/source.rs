//! What the house rules look at: the files of the tree, cut into code, test code, tokens and paths. No rule is in here.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file of the tree, with what the rules look at.
pub(crate) struct Source {
    /// From the top of the checkout.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Permission bits.
    pub(crate) mode: u32,
    /// The text with comments and literals blanked out.
    pub(crate) code: String,
    /// The code with test modules blanked out.
    pub(crate) product: String,
    /// How many lines the test modules take.
    pub(crate) test_lines: usize,
    /// The whole file is test code.
    pub(crate) test: bool,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str, mode: u32) -> Source {
        let code = if path.ends_with(".rs") {
            code_only(text)
        } else {
            String::new()
        };
        let (product, test_lines) = without_tests(&code);
        let test = ["tests/", "benches/"]
            .iter()
            .any(|folder| path.starts_with(folder))
            || path.ends_with("/tests.rs");
        let product = if test { String::new() } else { product };
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            mode,
            code,
            product,
            test_lines,
            test,
        }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The file's module, as `worker::timers`; empty for the crate's root and for files outside `src`.
    pub(crate) fn module(&self) -> String {
        let path = self
            .path
            .strip_prefix("src/")
            .and_then(|path| path.strip_suffix(".rs"))
            .unwrap_or_default();
        let path = if ["lib", "main"].contains(&path) {
            ""
        } else {
            path
        };
        path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
    }

    pub(crate) fn is_in(&self, module: &str) -> bool {
        is_below(&self.module(), module)
    }

    /// Every path in the code that leads to another module of the crate, resolved and without the leading `crate::`.
    pub(crate) fn crate_paths(&self) -> Vec<(usize, String)> {
        let own = self.module();
        let mut resolved = Vec::new();
        for (line, path) in paths(&self.product) {
            let mut base: Vec<_> = own.split("::").filter(|name| !name.is_empty()).collect();
            let mut rest = path.as_slice();
            match rest.first().map(String::as_str) {
                Some("crate" | "ringway") => base.clear(),
                Some("super" | "self") => {}
                _ => continue,
            }
            while let Some("crate" | "ringway" | "self" | "super") =
                rest.first().map(String::as_str)
            {
                if rest[0] == "super" {
                    base.pop();
                }
                rest = &rest[1..];
            }
            base.extend(rest.iter().map(String::as_str));
            if !rest.is_empty() {
                resolved.push((line, base.join("::")));
            }
        }
        resolved
    }
}

/// Every text file that is ours. What `#[cfg(test)] mod name;` brings in counts as test code.
pub(crate) fn sources(root: &Path, top_level: &[&str]) -> Vec<Source> {
    let mut files = Vec::new();
    for name in top_level
        .iter()
        .filter(|name| ![".git", "target", "Cargo.lock"].contains(name))
    {
        files_below(&root.join(name), &mut files);
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files {
        let path = file.strip_prefix(root).unwrap().to_str().unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        if let Ok(text) = fs::read_to_string(&file) {
            sources.push(Source::new(path, &text, mode));
        }
    }
    let test_modules: BTreeSet<_> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let module = source.module();
        if test_modules.iter().any(|test| is_below(&module, test)) {
            source.test = true;
            source.product.clear();
        }
    }
    sources
}

/// All files below, without what tools make there.
fn files_below(path: &Path, files: &mut Vec<PathBuf>) {
    const MADE: &[&str] = &["target", "corpus", "artifacts", "coverage"];
    let is_made = MADE.iter().any(|name| path.ends_with(name));
    if path.is_dir() && !is_made {
        for entry in fs::read_dir(path).unwrap() {
            files_below(&entry.unwrap().path(), files);
        }
    } else if path.is_file() {
        files.push(path.to_owned());
    }
}

/// The modules in files of their own that a file declares for tests only.
fn test_modules(source: &Source) -> Vec<String> {
    let product: Vec<_> = tokens(&source.product);
    let all = tokens(&source.code);
    let declared = |tokens: &[Token<'_>]| -> BTreeSet<String> {
        let declarations = tokens
            .windows(3)
            .filter(|three| three[0].text == "mod" && three[2].text == ";");
        declarations.map(|three| three[1].text.to_owned()).collect()
    };
    let own = source.module();
    let prefix = if own.is_empty() { own } else { own + "::" };
    declared(&all)
        .difference(&declared(&product))
        .map(|name| format!("{prefix}{name}"))
        .collect()
}

pub(crate) fn is_below(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `SessionsMax`, `sessions_max` and `SESSIONS_MAX` are all made of `sessions` and `max`.
pub(crate) fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && after_lower) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
        after_lower = c.is_lowercase();
    }
    words
}

/// Blanks comments and the insides of literals, and keeps the lines.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at);
        match end {
            Some(end) => {
                code.extend(
                    chars[at..end]
                        .iter()
                        .map(|&c| if c == '\n' { '\n' } else { ' ' }),
                );
                at = end;
            }
            None => {
                code.push(chars[at]);
                at += 1;
            }
        }
    }
    code
}

/// Where the comment or literal ends that begins here, if one does.
fn literal_or_comment_end(chars: &[char], at: usize) -> Option<usize> {
    let rest = &chars[at..];
    let find = |from: usize, pattern: &[char]| {
        let found = rest[from..]
            .windows(pattern.len())
            .position(|window| window == pattern);
        found.map_or(chars.len(), |position| at + from + position + pattern.len())
    };
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => Some(at + rest.iter().position(|&c| c == '\n').unwrap_or(rest.len())),
        ['/', '*', ..] => Some(block_comment_end(chars, at)),
        ['"', ..] => Some(string_end(chars, at)),
        ['\'', '\\', _, ..] => Some(find(3, &['\''])),
        ['\'', _, '\'', ..] => Some(at + 3),
        ['b', '"' | '\'', ..] if !in_word => None,
        ['r', ..] | ['b' | 'c', 'r', ..] if !in_word => {
            let start = rest
                .iter()
                .position(|&c| c != 'r' && c != 'b' && c != 'c')?;
            let hashes = rest[start..].iter().take_while(|&&c| c == '#').count();
            let quoted = start <= 2 && rest.get(start + hashes) == Some(&'"');
            let closing: Vec<char> = std::iter::once('"')
                .chain(std::iter::repeat_n('#', hashes))
                .collect();
            quoted.then(|| find(start + hashes + 1, &closing))
        }
        _ => None,
    }
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut end = at;
    while end + 1 < chars.len() {
        match (chars[end], chars[end + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                end += 1;
                continue;
            }
        }
        end += 2;
        if depth == 0 {
            return end;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut end = at + 1;
    while end < chars.len() && chars[end] != '"' {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    chars.len().min(end + 1)
}

/// Blanks every item under `#[cfg(test)]`, and counts the lines that this takes.
fn without_tests(code: &str) -> (String, usize) {
    let mut product = code.to_owned();
    let mut lines = 0;
    while let Some(start) = ["#[cfg(test)]", "#[cfg(all(test"]
        .iter()
        .filter_map(|mark| product.find(mark))
        .min()
    {
        let end = item_end(&product, start);
        lines += product[start..end].lines().count();
        let blank: String = product[start..end]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        product.replace_range(start..end, &blank);
    }
    (product, lines)
}

/// Where the item ends whose text begins here: behind its block, or behind its semicolon.
fn item_end(code: &str, start: usize) -> usize {
    let mut brackets = 0_i32;
    let mut braces = 0_i32;
    for (at, c) in code[start..].char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        if brackets <= 0 && braces <= 0 && (c == '}' || c == ';') {
            return start + at + 1;
        }
    }
    code.len()
}

/// Name, first and last line of every function with a body.
pub(crate) fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let inside_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String = code[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let end = item_end(code, at);
        if !inside_word && !name.is_empty() && code[..end].ends_with('}') {
            functions.push((name, line_of(at), line_of(end)));
        }
    }
    functions
}

/// A word, `::`, or a single other character.
#[derive(Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

pub(crate) fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                length => length,
            };
            tokens.push(Token {
                line: number + 1,
                text: &rest[..length],
            });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Every path in the code, imports spread out; a plain word is a path of one. What is in `pub(...)` is none.
pub(crate) fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(code);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let line = tokens[at].line;
        if text(at) == "pub" && text(at + 1) == "(" {
            found.push((line, vec!["pub".to_owned()]));
            at += tokens[at..]
                .iter()
                .take_while(|token| token.text != ")")
                .count();
        } else if text(at) == "use" && text(at + 1) != "<" {
            let mut imports = Vec::new();
            at = import(&tokens, at + 1, &[], &mut imports);
            found.extend(imports.into_iter().map(|path| (line, path)));
        } else if is_word(text(at)) {
            let mut path = vec![text(at).to_owned()];
            while text(at + 1) == "::" && is_word(text(at + 2)) {
                path.push(text(at + 2).to_owned());
                at += 2;
            }
            found.push((line, path));
        }
        at += 1;
    }
    found
}

/// Spreads the import tree that begins here, and returns where it ends.
fn import(
    tokens: &[Token<'_>],
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.text {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = import(tokens, at, &path, found);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                }
                return at + 1;
            }
            "," | "}" | ";" => break,
            "as" => at += 1,
            "::" => {}
            name => path.push(name.to_owned()),
        }
        at += 1;
    }
    if path.len() > prefix.len() {
        found.push(path);
    }
    at
}

#[test]
fn comments_and_literals_are_not_code() {
    for (text, words) in [
        ("a // b\nc", vec!["a", "c"]),
        ("a /* b /* c */ d */ e", vec!["a", "e"]),
        (r#"a "b \" c" d"#, vec!["a", "d"]),
        (r##"a r#"b " c"# d br"e" f"##, vec!["a", "d", "f"]),
        (r"a 'b' '\'' '{' f::<'c>() d", vec!["a", "f", "c", "d"]),
        ("r#type r + b", vec!["r", "type", "r", "b"]),
    ] {
        let code = code_only(text);
        assert_eq!(code.lines().count(), text.lines().count(), "{text}");
        let found: Vec<_> = tokens(&code)
            .into_iter()
            .filter(|token| is_word(token.text))
            .map(|token| token.text)
            .collect();
        assert_eq!(found, words, "{text}");
    }
}

#[test]
fn paths_are_found_in_imports_and_expressions() {
    for (text, expected) in [
        (
            "use std::{fs, net::{IpAddr, self as n}};",
            vec!["std::fs", "std::net::IpAddr", "std::net::self"],
        ),
        ("use crate::session::*;", vec!["crate::session::*"]),
        (
            "let x = std::env::var(a.b);",
            vec!["let", "x", "std::env::var", "a", "b"],
        ),
        (
            "pub(in crate::worker) struct A;",
            vec!["pub", "struct", "A"],
        ),
        (
            "fn f() -> impl Sized + use<'a> {}",
            vec!["fn", "f", "impl", "Sized", "use", "a"],
        ),
    ] {
        let found: Vec<_> = paths(&code_only(text))
            .into_iter()
            .map(|(_, path)| path.join("::"))
            .collect();
        assert_eq!(found, expected, "{text}");
    }
}
