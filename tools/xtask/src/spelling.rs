//! Checks for American spelling: finds British words in code, comments, documents, and configs.
//!
//! It uses patterns rather than a dictionary, so it also finds words that no list contains
//! ("vectorised"). Words in identifiers count, too: `camelCase` and `snake_case` are split.
//! Exceptions, such as names given by others, are listed in [`NAMES`], or marked in their line with
//! [`MARKER`].

use std::path::Path;

use crate::fail::{Result, failed};
use crate::files;
use crate::workspace::Workspace;

/// Extensions of the files that are checked.
const EXTENSIONS: [&str; 13] =
    ["rs", "md", "toml", "yaml", "yml", "py", "sh", "cff", "cpp", "h", "css", "js", "json"];

/// This file, which is skipped because it is full of British words.
const THIS_FILE: &str = "tools/xtask/src/spelling.rs";

/// Marks a line that may contain British words; the rest of the line says why.
const MARKER: &str = "spelling:";

/// Names that are allowed, because they are those of files or were given by others.
const NAMES: [&str; 6] =
    ["grey.jpg", "grey.pixels", "grey_1x1", "grey_5x3", "grey_alpha", "grey_restart"];

/// British parts of words, anywhere in a word, and their American forms. The first match counts.
const PARTS: [(&str, &str); 28] = [
    ("aluminium", "aluminum"),
    ("artefact", "artifact"),
    ("behaviour", "behavior"),
    ("calibre", "caliber"),
    ("catalogue", "catalog"),
    ("centred", "centered"),
    ("centre", "center"),
    ("centring", "centering"),
    ("channell", "channel"),
    ("colour", "color"),
    ("defence", "defense"),
    ("favour", "favor"),
    ("fibre", "fiber"),
    ("flavour", "flavor"),
    ("grey", "gray"),
    ("harbour", "harbor"),
    ("honour", "honor"),
    ("humour", "humor"),
    ("labell", "label"),
    ("levell", "level"),
    ("licence", "license"),
    ("manoeuvre", "maneuver"),
    ("modell", "model"),
    ("neighbour", "neighbor"),
    ("offence", "offense"),
    ("sceptic", "skeptic"),
    ("signall", "signal"),
    ("travell", "travel"),
];

/// Whole words, for which a part would also match American words.
const WORDS: [(&str, &str); 19] = [
    ("ageing", "aging"),
    ("amongst", "among"),
    ("cancelled", "canceled"),
    ("cancelling", "canceling"),
    ("fulfil", "fulfill"),
    ("fulfils", "fulfills"),
    ("judgement", "judgment"),
    ("learnt", "learned"),
    ("metre", "meter"),
    ("metres", "meters"),
    ("practise", "practice"),
    ("practised", "practiced"),
    ("practising", "practicing"),
    ("programme", "program"),
    ("programmes", "programs"),
    ("spelt", "spelled"),
    ("spoilt", "spoiled"),
    ("totalled", "totaled"),
    ("whilst", "while"),
];

/// Inflections and derivations of `-ise`, and their American forms.
const ENDINGS: [(&str, &str); 11] = [
    ("isation", "ization"),
    ("isations", "izations"),
    ("isational", "izational"),
    ("ise", "ize"),
    ("ised", "ized"),
    ("iser", "izer"),
    ("isers", "izers"),
    ("ises", "izes"),
    ("ising", "izing"),
    ("isable", "izable"),
    ("isingly", "izingly"),
];

/// Words that end in `-ise` in American English, too.
const TRUE_ISE: &str = "advertise advise anise apprise arise braise bruise chaise chastise circumcise comprise \
    compromise concise cruise demise denoise despise devise disguise enterprise excise exercise \
    expertise franchise guise improvise incise likewise merchandise mayonnaise noise otherwise paradise poise \
    porpoise praise precise premise promise raise reprise revise rise sunrise supervise \
    surmise surprise televise tortoise treatise turquoise vise wise";

/// Prefixes that such a word may have, as in "unsupervised" and "elementwise".
const FRONTS: &str = "un re im self semi pre over bit byte element row column pair channel layer block group \
    patch stage module tensor step sample image batch de up down clock counterclock piece point class";

/// Checks all files.
///
/// # Errors
/// Returns an error that lists every British word with its file, line, and American form.
pub fn check(workspace: &Workspace) -> Result<()> {
    let mut found = Vec::new();
    for path in files::ours(workspace.root())?.iter().filter(|path| is_read(path)) {
        let text = files::read(path)?;
        let shown = path.strip_prefix(workspace.root()).unwrap_or(path).display().to_string();
        for (number, line) in text.lines().enumerate() {
            for (word, american) in british(line) {
                found.push(format!("{shown}:{}: {word} ({american})", number + 1));
            }
        }
    }
    match found.len() {
        0 => Ok(()),
        count => failed(format!(
            "words in British spelling: {count}; names that must stay can be listed in \
             {THIS_FILE}:\n  {}",
            found.join("\n  ")
        )),
    }
}

fn is_read(path: &Path) -> bool {
    let known = |ending: &str| EXTENSIONS.contains(&ending);
    let script = path.ends_with(".ci/run");
    let ours = path.extension().and_then(|ending| ending.to_str()).is_some_and(known);
    (ours || script) && !path.ends_with(THIS_FILE)
}

/// Returns the British words of a line, each with its American form.
fn british(line: &str) -> Vec<(String, String)> {
    if line.contains(MARKER) {
        return Vec::new();
    }
    let mut line = line.to_owned();
    for name in NAMES {
        line = line.replace(name, " ");
    }
    let words = words(&line);
    words.filter_map(|word| Some((word.clone(), american(&word)?))).collect()
}

/// Returns the words of a line in lowercase; identifiers are split.
fn words(line: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for letter in line.chars() {
        if !letter.is_alphabetic() || (letter.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        if letter.is_alphabetic()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
        was_lower = letter.is_lowercase();
    }
    words.into_iter().filter(|word| !word.is_empty())
}

/// Returns the American form of a word in lowercase if it is British.
fn american(word: &str) -> Option<String> {
    if let Some((_, american)) = WORDS.iter().find(|(british, _)| *british == word) {
        return Some((*american).to_owned());
    }
    let mut changed = word.to_owned();
    for (british, american) in PARTS {
        changed = changed.replace(british, american);
    }
    if changed != word {
        return Some(changed);
    }
    of_yse(word).or_else(|| of_ise(word))
}

/// Matches "analysed", but not "analyses", which is also the plural of a noun.
fn of_yse(word: &str) -> Option<String> {
    ["yse", "ysed", "yser", "ysers", "ysing"].iter().find_map(|ending| {
        let stem = word.strip_suffix(ending)?;
        let long_enough = stem.len() >= 3;
        long_enough.then(|| format!("{stem}{}", ending.replace("ys", "yz")))
    })
}

/// Matches "normalised", but not "raised".
fn of_ise(word: &str) -> Option<String> {
    ENDINGS.iter().find_map(|(ending, american)| {
        let stem = word.strip_suffix(ending)?;
        let verb = format!("{stem}ise");
        // Shorter stems are those of other words: "wise", "rising", "isize", and "rise".
        let long_enough = stem.len() >= 3 && stem.contains(['a', 'e', 'i', 'o', 'u', 'y']);
        (long_enough && !is_true_ise(&verb)).then(|| format!("{stem}{american}"))
    })
}

fn is_true_ise(verb: &str) -> bool {
    let known = |word: &str| TRUE_ISE.split_whitespace().any(|known| known == word);
    known(verb)
        || FRONTS.split_whitespace().any(|front| verb.strip_prefix(front).is_some_and(known))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(line: &str) -> String {
        let pairs = british(line).into_iter().map(|(word, better)| format!("{word}>{better}"));
        pairs.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn british_words_are_found() {
        let cases = [
            ("The colour of a grey centre.", "colour>color grey>gray centre>center"),
            ("fn colourJitter(max_colours: u8)", "colour>color colours>colors"),
            ("struct LabelledRows; // unlabelled", "labelled>labeled unlabelled>unlabeled"),
            ("NORMALISED", "normalised>normalized"),
            ("vectorised, factorises", "vectorised>vectorized factorises>factorizes"),
            ("let denormalisation = 1;", "denormalisation>denormalization"),
            ("optimiser optimisers", "optimiser>optimizer optimisers>optimizers"),
            ("analyse, analysing", "analyse>analyze analysing>analyzing"),
            ("uncentred centring", "uncentred>uncentered centring>centering"),
            ("summarise, solarise", "summarise>summarize solarise>solarize"),
            ("practise", "practise>practice"),
            ("Learnt behaviour", "learnt>learned behaviour>behavior"),
            ("modelling", "modelling>modeling"),
            ("gris et grey", "grey>gray"),
        ];
        for (line, expect) in cases {
            assert_eq!(found(line), expect, "{line}");
        }
    }

    #[test]
    fn american_words_pass() {
        for line in [
            "color gray center normalized optimizer neighbors labeled learned",
            "noise, precise, otherwise, likewise, elementwise, raised, rising, promise, exercised",
            "unsupervised and self-supervised; denoise; imprecise; improvisation",
            "analyses, analysis; paralysis; isize; visible; advisable; promising; surprisingly",
            "programmed programmers; parameters; diameter; symmetric; geometry",
            "license, practice, cancellation, equally, totally, signal, label, model, modeled",
            "hour, four, source, contour, pour, tour, detour",
            "a disk of 3 m; supervisor; comprises; wiser; riser; miser; advisers",
            "",
        ] {
            assert_eq!(found(line), "", "{line}");
        }
    }

    #[test]
    fn names_and_marked_lines_stay() {
        assert_eq!(found("open(\"grey.jpg\")"), "");
        assert_eq!(found("open(\"grey.jpg\") // in grey"), "grey>gray");
        assert_eq!(found("use other::Colour; // spelling: their name"), "");
    }

    #[test]
    fn files_of_others_are_left_out() {
        let root = std::env::temp_dir().join(format!("xtask-spelling-{}", std::process::id()));
        for (name, read) in [
            ("src/a.rs", true),
            (".ci/run", true),
            (".github/workflows/ci.yml", true),
            (".venv/b.py", false),
            ("target/debug/c.rs", false),
            ("tests/fixtures/d.md", false),
            ("e.lock", false),
            (THIS_FILE, false),
        ] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "colour").unwrap();
            let found = files::ours(&root).unwrap().contains(&path) && is_read(&path);
            assert_eq!(found, read, "{name}");
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
