//! Plain English, as far as a program can check it: words that the style rule bans, and comments and test names
//! that open with a clause. The subject of a sentence is a thing.

use super::lexer;
use super::{Source, mentions};

/// Banned words. Each has a plain counterpart, such as "again" for "anew" and "is logged" for "is told".
const WORDS: &[&str] = &[
    "albeit",
    "all the same",
    "amongst",
    "anew",
    "are told",
    "be told",
    "besides",
    "but for",
    "dear",
    "ere",
    "for ever",
    "for to",
    "forthwith",
    "heed",
    "heeded",
    "heeds",
    "hence",
    "hereby",
    "hither",
    "in vain",
    "is told",
    "lest",
    "mend",
    "mended",
    "mends",
    "naught",
    "nought",
    "now and then",
    "so long as",
    "thence",
    "thereby",
    "therein",
    "thereof",
    "thereupon",
    "thither",
    "told of",
    "unto",
    "upon",
    "was told",
    "were told",
    "whatever",
    "whence",
    "wherein",
    "whereof",
    "whereupon",
    "whilst",
    "whoever",
    "whom",
    "whomever",
    "yonder",
];

/// Words that open a clause. No comment, no sentence of a comment and no name of a test begins with one.
const CLAUSES: [&str; 13] = [
    "How",
    "What",
    "Whatever",
    "Where",
    "Wherever",
    "Whether",
    "Which",
    "Whichever",
    "Who",
    "Whoever",
    "Whom",
    "Whose",
    "Why",
];

/// Finds banned words in comments, string literals and pages.
pub fn banned_words(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    // These files list the words and plant them.
    for source in sources.iter().filter(|source| !source.path.starts_with("tests/tidy")) {
        let prose = |n: usize, line: &str| -> Vec<String> {
            let lower = line.to_lowercase();
            // A hyphen makes a word a part of another, as in systemctl's `--kill-whom`.
            let lower = lower.replace('-', "_");
            let found = WORDS.iter().filter(|word| mentions(&lower, word));
            found.map(|word| format!("{}:{}: {word:?}", source.path, n + 1)).collect()
        };
        if source.is_rust() {
            for (n, line) in lexer::lines(&source.text).iter().enumerate() {
                broken.extend(prose(n, &format!("{} {}", line.comment, line.text)));
            }
        } else {
            source.text.lines().enumerate().for_each(|(n, line)| broken.extend(prose(n, line)));
        }
    }
    broken
}

/// Finds comments, or sentences of comments, that open with a clause instead of the thing. Questions may.
pub fn clauses(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for (line, text) in comments(&source.text) {
            for sentence in text.replace(": ", ". ").split_inclusive(['.', '?', '!']) {
                let first = sentence.trim().split(|c: char| !c.is_alphanumeric()).next().unwrap_or("");
                if CLAUSES.contains(&first) && !sentence.ends_with('?') {
                    broken.push(format!("{}:{line}: {}", source.path, sentence.trim()));
                }
            }
        }
    }
    broken
}

/// Finds functions of tests whose names open with a clause.
pub fn clauses_of_names(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for (n, line) in source.text.lines().enumerate() {
            let Some(name) = line.trim().strip_prefix("fn ") else { continue };
            let first = name.split('_').next().unwrap_or("");
            if name.contains('_') && CLAUSES.iter().any(|clause| clause.eq_ignore_ascii_case(first)) {
                broken.push(format!("{}:{}: {}", source.path, n + 1, line.trim()));
            }
        }
    }
    broken
}

/// The paragraphs of a file's comments, each with the number of its first line.
fn comments(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for (n, line) in lexer::lines(text).iter().enumerate() {
        let own_line = line.code.trim().is_empty();
        let said = line.comment.trim_start_matches(['/', '!']).trim();
        let item = said.trim_start_matches(['-', '*', ' ']);
        if said.is_empty() {
            continues = false;
            continue;
        }
        match found.last_mut() {
            Some((_, paragraph)) if continues && own_line && item == said => {
                paragraph.push(' ');
                paragraph.push_str(said);
            }
            _ => found.push((n + 1, item.to_owned())),
        }
        continues = own_line;
    }
    found
}
