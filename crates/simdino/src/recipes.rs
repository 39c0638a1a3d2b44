//! The recipes of `configs/`, embedded in the library, so that training with one needs no file.
//!
//! A recipe is the YAML text of a config, which the caller parses. `recipes` beside `src` is a
//! symbolic link to `configs/`, which makes the files part of the package.

/// Expands to a list of names and texts.
macro_rules! recipes {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../recipes/", $name, ".yaml")))),*]
    };
}

const RECIPES: &[(&str, &str)] = recipes!(
    "cifar10_gpu"
    "cifar10_nano"
    "cifar10_nano_dino"
    "cifar10_nano_dinov2"
    "cifar10_nano_simdinov2"
    "continued_dinov2_vitb14"
    "default"
    "demo"
    "dino_noema_vits16_in1k"
    "dino_vitb16_coco"
    "dino_vitb16_in1k"
    "dino_vitl16_in1k"
    "dino_vits16_boosted_in1k"
    "dino_vits16_in1k"
    "dinov2_vitb16_in1k"
    "dinov2_vitl14_in22k"
    "dinov2_vitl16_in1k"
    "dinov2_vitl16_short_in1k"
    "dinov2_vits16_in1k"
    "highres_simdinov2_vitb16"
    "quickstart"
    "simdino_noema_vits16_in1k"
    "simdino_vitb16_coco"
    "simdino_vitb16_in1k"
    "simdino_vitl16_in1k"
    "simdino_vits16_batch1024_in1k"
    "simdino_vits16_batch256_in1k"
    "simdino_vits16_in1k"
    "simdinov2_vitb16_in1k"
    "simdinov2_vitl16_in1k"
    "simdinov2_vits16_in1k"
    "tinyimagenet_simdino"
    "tinyimagenet_simdinov2"
);

/// Maximum number of names that [`similar`] returns.
const MOST_SIMILAR: usize = 3;

/// Returns the names of all recipes, sorted.
pub fn names() -> impl ExactSizeIterator<Item = &'static str> {
    RECIPES.iter().map(|(name, _)| *name)
}

/// Returns the YAML text of the recipe of this name, if there is one.
pub fn text(name: &str) -> Option<&'static str> {
    RECIPES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// Returns the summary of a recipe: the first sentence of the comment at the start of its text.
pub fn summary(text: &'static str) -> &'static str {
    let line = text.lines().next().unwrap_or_default().trim_start_matches('#').trim();
    line.find(". ").map_or(line, |end| &line[..=end])
}

/// Returns the recipes that an unknown name may have meant, the likeliest first: those whose names
/// contain what was typed, or else those with similar spelling.
pub fn similar(typed: &str) -> Vec<&'static str> {
    let typed = typed.to_lowercase().replace('-', "_");
    let typed = typed.trim_end_matches(".yaml");
    let distance = |name: &&str| strsim::damerau_levenshtein(name, typed);
    let mut found: Vec<_> =
        names().filter(|name| typed.len() > 2 && name.contains(typed)).collect();
    if found.is_empty() {
        found = names().filter(|name| distance(name) <= (typed.len() / 3).max(1)).collect();
    }
    found.sort_by_key(distance);
    found.truncate(MOST_SIMILAR);
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_inside() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort_by_key(|file| file.trim_end_matches(".yaml").to_owned());
        let inside: Vec<_> = names().map(|name| format!("{name}.yaml")).collect();
        assert_eq!(inside, files, "the list in recipes.rs is sorted and holds all of configs/");
        for name in names() {
            let file = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
            assert_eq!(text(name), Some(file.as_str()), "{name}");
        }
        assert_eq!((text("quickstart.yaml"), text("")), (None, None));
    }

    #[test]
    fn every_recipe_says_what_it_is_for_on_one_line() {
        for name in names() {
            let summary = summary(text(name).unwrap());
            assert!(summary.ends_with('.') && summary.len() > 20, "{name}: {summary}");
            assert!(summary.len() < 105, "{name}: {summary}");
        }
        assert_eq!(summary("# One. Two.\n# Three.\n"), "One.");
        assert_eq!((summary(""), summary("run: {}\n")), ("", "run: {}"));
    }

    #[test]
    fn a_mistyped_name_has_neighbors() {
        assert_eq!(similar("quikstart"), ["quickstart"]);
        assert_eq!(similar("QuickStart.yaml"), ["quickstart"]);
        assert_eq!(similar("simdino-vitb16-in1k"), ["simdino_vitb16_in1k"]);
        assert_eq!(similar("simdino_vitb16"), ["simdino_vitb16_coco", "simdino_vitb16_in1k"]);
        assert_eq!(similar("simdino_vitb16_in1"), ["simdino_vitb16_in1k"]);
        assert_eq!(similar("simdinov2_vitb61_in1k")[0], "simdinov2_vitb16_in1k");
        assert_eq!(similar("vit").len(), MOST_SIMILAR);
        for nothing_like_it in ["", "a", "my_own_config", "\u{1f600}"] {
            assert_eq!(similar(nothing_like_it), [""; 0], "{nothing_like_it:?}");
        }
    }
}
