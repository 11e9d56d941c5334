//! Shows findings: to people as text that fits their terminal, to programs as JSON.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use textwrap::{Options, WordSplitter};

use super::finding::{Area, Finding, Level};

/// Longer lines are hard to read.
const WIDTH_MAX: usize = 110;
const WIDTH_MIN: usize = 50;
/// Below this, findings get a line of their own.
const WIDTH_FOR_COLUMNS: usize = 72;
/// Where the findings' texts begin.
const TEXT_AT: usize = 23;
/// Reasons and remedies begin with a word of this length.
const WHY: &str = "Why:  ";
const MEND: &str = "Mend: ";

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was looked at, in a few words.
    pub subject: Vec<String>,
    /// One for each check.
    pub findings: Vec<Finding>,
    /// What is good to know beyond the findings.
    pub notes: Vec<String>,
}

/// How a text is shown.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Columns.
    pub width: usize,
    /// Whether the terminal shows colours.
    pub colours: bool,
    /// Why it matters also where all is fine.
    pub verbose: bool,
}

impl Report {
    /// Whether Ringway would not run.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.count(Level::Fail) > 0
    }

    fn count(&self, level: Level) -> usize {
        let of_level = self
            .findings
            .iter()
            .filter(|finding| finding.level == level);
        of_level.count()
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings and lists can be JSON");
        text.push('\n');
        text
    }

    /// For people.
    #[must_use]
    pub fn text(&self, look: Look) -> String {
        let mut page = Page::new(look);
        for line in &self.subject {
            page.paragraph("", "", line, Style::new());
        }
        for area in Area::ALL {
            let of_area = || {
                self.findings
                    .iter()
                    .filter(move |finding| finding.area == area)
            };
            if of_area().next().is_some() {
                page.title(area.title());
                of_area().for_each(|finding| page.finding(finding));
            }
        }
        page.blank();
        for note in &self.notes {
            page.paragraph("", "", note, Style::new());
        }
        if !self.notes.is_empty() {
            page.blank();
        }
        self.summary(&mut page);
        page.text
    }

    fn summary(&self, page: &mut Page) {
        let parts = [Level::Fail, Level::Warn, Level::Unknown, Level::Ok]
            .into_iter()
            .filter(|level| self.count(*level) > 0)
            .map(|level| format!("{} {}", self.count(level), in_summary(level)));
        let counts = parts.collect::<Vec<_>>().join(", ");
        let (verdict, level) = if self.has_failures() {
            ("Ringway does not run like this", Level::Fail)
        } else if self.count(Level::Warn) > 0 {
            ("Ringway runs; look at the warnings", Level::Warn)
        } else {
            ("Ringway runs", Level::Ok)
        };
        page.paragraph("", "", &format!("{verdict}: {counts}."), style(level));
    }
}

fn in_summary(level: Level) -> &'static str {
    match level {
        Level::Unknown => "not known",
        Level::Ok | Level::Warn | Level::Fail => word(level),
    }
}

/// At most four letters.
fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "OK",
        Level::Unknown => "?",
        Level::Warn => "WARN",
        Level::Fail => "FAIL",
    }
}

fn style(level: Level) -> Style {
    match level {
        Level::Ok => AnsiColor::Green.on_default(),
        Level::Unknown => AnsiColor::Cyan.on_default(),
        Level::Warn => AnsiColor::Yellow.on_default().bold(),
        Level::Fail => AnsiColor::Red.on_default().bold(),
    }
}

/// Text that grows downwards, within a width.
struct Page {
    text: String,
    look: Look,
}

impl Page {
    fn new(look: Look) -> Page {
        let width = look.width.clamp(WIDTH_MIN, WIDTH_MAX);
        Page {
            text: String::new(),
            look: Look { width, ..look },
        }
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }

    fn title(&mut self, title: &str) {
        self.blank();
        self.line("", title, Style::new().bold());
    }

    fn finding(&mut self, finding: &Finding) {
        let (word, name) = (word(finding.level), finding.check);
        let mark = self.painted(&format!("{word:<4}"), style(finding.level));
        let head = format!("  {mark}  {name:<width$}", width = TEXT_AT - 9);
        // An excerpt of a file wants the whole width.
        let is_excerpt = finding.finding.contains('\n');
        let text_at = if is_excerpt || self.look.width < WIDTH_FOR_COLUMNS {
            let _ = writeln!(self.text, "{}", head.trim_end());
            8
        } else {
            let _ = write!(self.text, "{head} ");
            TEXT_AT
        };
        let indent = " ".repeat(text_at);
        let wrapped = self.wrapped(&indent, &indent, &finding.finding, false);
        let begun = if text_at == TEXT_AT { text_at } else { 0 };
        // The first line goes on where the head ends.
        let _ = writeln!(
            self.text,
            "{}",
            wrapped[begun.min(wrapped.len())..].trim_end()
        );
        let trouble = match finding.level {
            Level::Warn | Level::Fail => true,
            Level::Ok | Level::Unknown => false,
        };
        if trouble || self.look.verbose {
            let why = format!("{indent}{WHY}");
            let others = " ".repeat(why.len());
            self.paragraph(&why, &others, &finding.why, Style::new().dimmed());
        }
        let mut start = format!("{indent}{MEND}");
        for line in &finding.mend {
            self.mend(&start, line);
            start = " ".repeat(start.len());
        }
    }

    /// A command that is too long goes on after a backslash, so that it can be copied; a comment just goes on.
    fn mend(&mut self, start: &str, line: &str) {
        let others = " ".repeat(start.len());
        if let Some(comment) = line.strip_prefix('#') {
            let (start, others) = (format!("{start}# "), format!("{others}# "));
            self.paragraph(&start, &others, comment.trim_start(), Style::new());
            return;
        }
        if line.contains('\'') {
            // A backslash would be taken as it is between the quotes.
            self.line(start, line, Style::new().bold());
            return;
        }
        let wrapped = self.wrapped(start, &format!("{others}    "), line, true);
        let lines: Vec<&str> = wrapped.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let goes_on = if at + 1 < lines.len() { " \\" } else { "" };
            // Painted from where the command begins.
            let begin = start.len().min(line.len());
            let text = format!("{}{goes_on}", line[begin..].trim_end());
            self.line(&line[..begin], &text, Style::new().bold());
        }
    }

    /// Only the text is painted, not what it begins with.
    fn paragraph(&mut self, first: &str, others: &str, text: &str, style: Style) {
        let wrapped = self.wrapped(first, others, text, false);
        for (at, line) in wrapped.lines().enumerate() {
            let begin = if at == 0 { first.len() } else { others.len() };
            let (start, text) = line.split_at(begin.min(line.len()));
            self.line(start, text, style);
        }
    }

    fn line(&mut self, indent: &str, text: &str, style: Style) {
        let painted = self.painted(text, style);
        let _ = writeln!(self.text, "{indent}{painted}");
    }

    fn wrapped(&self, first: &str, others: &str, text: &str, is_command: bool) -> String {
        // Names of processes and excerpts of files must not steer the terminal.
        let printable = |letter: char| match letter {
            '\n' => '\n',
            letter if letter.is_control() => ' ',
            letter => letter,
        };
        let text: String = text.chars().map(printable).collect();
        let room_for_backslash = if is_command { 2 } else { 0 };
        let options = Options::new(self.look.width - room_for_backslash)
            .initial_indent(first)
            .subsequent_indent(others)
            .word_splitter(WordSplitter::NoHyphenation)
            .word_separator(textwrap::WordSeparator::AsciiSpace)
            .break_words(!is_command);
        textwrap::fill(&text, options)
    }

    fn painted(&self, text: &str, style: Style) -> String {
        if self.look.colours {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let finding = |check, level, finding: &str, mend: &[&str]| {
            Finding {
            area: Area::Limits,
            check,
            level,
            finding: finding.to_owned(),
            why: "It matters because of several things that take more than one line to be told in full.".to_owned(),
            mend: mend.iter().map(|line| (*line).to_owned()).collect(),
        }
        };
        Report {
            subject: vec!["lb1".to_owned()],
            findings: vec![
                finding(
                    "open files",
                    Level::Ok,
                    "1,024; that makes very many sessions",
                    &[],
                ),
                finding(
                    "backlog",
                    Level::Warn,
                    "4,096 is cut to 128 \u{1b}[31mby the kernel, for each of the many workers of this host",
                    &[
                        "# as root, in the shell that starts ringway or in the unit of its service",
                        "a-command --with=arguments --that=are --too=long --for=one --line=of --eighty=columns --x",
                    ],
                ),
                Finding {
                    area: Area::File,
                    ..finding(
                        "file",
                        Level::Fail,
                        "error: line 3\n  |\n3 |   bind: x\n  |         ^",
                        &[],
                    )
                },
                finding("splice pipes", Level::Unknown, "not known here", &[]),
            ],
            notes: vec!["A note.".to_owned()],
        }
    }

    fn look(width: usize, colours: bool) -> Look {
        Look {
            width,
            colours,
            verbose: false,
        }
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_and_none_ends_in_spaces() {
        for width in [50, 80, 100, 200] {
            let text = report().text(look(width, false));
            for line in text.lines() {
                assert!(line.len() <= width.min(WIDTH_MAX), "{width}: {line}");
                assert_eq!(line, line.trim_end());
            }
            let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                one_line.contains("more than one line to be told in full."),
                "{text}"
            );
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let coloured = report().text(look(80, true));
        assert!(coloured.contains("\u{1b}[33m"), "{coloured}");
        let mut plain = String::new();
        let mut inside = false;
        for letter in coloured.chars() {
            match letter {
                '\u{1b}' => inside = true,
                'm' if inside => inside = false,
                letter if !inside => plain.push(letter),
                _ => {}
            }
        }
        assert_eq!(plain, report().text(look(80, false)));
    }

    #[test]
    fn commands_can_be_copied_and_excerpts_keep_their_columns() {
        let text = report().text(look(80, false));
        let command: Vec<&str> = text
            .lines()
            .skip_while(|line| !line.contains("a-command"))
            .take_while(|line| line.contains("--"))
            .collect();
        assert!(command.len() > 1, "{text}");
        let (last, others) = command.split_last().unwrap();
        assert!(others.iter().all(|line| line.ends_with(" \\")), "{text}");
        assert!(last.ends_with(" --x"), "{text}");
        assert!(
            text.contains("\n        3 |   bind: x\n          |         ^\n"),
            "{text}"
        );
    }

    #[test]
    fn why_is_told_where_something_is_wrong_and_on_request() {
        let whys = |verbose| {
            let look = Look {
                verbose,
                ..look(200, false)
            };
            report().text(look).matches("It matters").count()
        };
        assert_eq!(whys(false), 2);
        assert_eq!(whys(true), 4);
        let text = report().text(look(80, false));
        assert!(
            text.ends_with("does not run like this: 1 FAIL, 1 WARN, 1 not known, 1 OK.\n"),
            "{text}"
        );
        assert!(report().has_failures());
    }
}
