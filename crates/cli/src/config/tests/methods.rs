//! Tests of the recipe of each method, and of settings that do not fit it.

use super::*;

#[test]
fn a_method_is_a_whole_recipe() {
    for (name, method) in [
        ("simdino", Method::SimDino),
        ("simdinov2", Method::SimDinoV2),
        ("dino", Method::Dino),
        ("dinov2", Method::DinoV2),
    ] {
        let text = format!("data: {{path: a}}\nmethod: {name}\n");
        assert_eq!(problems(&text, &[]), Vec::<String>::new(), "{name}");
        let config = parse(&text, "c.yaml", &[]).unwrap();
        let mut expect = RunConfig::of(method);
        expect.data.path = Some("a".into());
        assert_eq!(config, expect);
        assert_eq!(config.without_effect(), Vec::<String>::new(), "{name}");
        // The full config reads back the same.
        assert_eq!(parse(&to_yaml(&config).unwrap(), "c.yaml", &[]).unwrap(), config);
    }
}

#[test]
fn the_file_wins_over_the_recipe_and_its_preset() {
    let text = "data: {path: a}\nmethod: dinov2\nmodel: {layer_scale: null, drop_path_rate: 0}\n\
                augment: {preset: simdino, local_crops_number: 4}\n";
    let config = parse(text, "c.yaml", &[]).unwrap();
    assert_eq!(config.model.layer_scale, None);
    assert_eq!(config.model.drop_path_rate, 0.0);
    assert!(config.model.mask_token, "what the file does not say is the recipe's");
    assert_eq!(config.augment.global_crops_scale, [0.4, 1.0]);
    assert_eq!(config.augment.local_crops_number, 4);
}

#[test]
fn network_and_loss_belong_to_the_same_method() {
    let cases = [
        ("method: dino\nhead: {prototypes: 0}", "head.prototypes: DINO needs at least 2 (got 0)"),
        (
            "method: simdinov2\nhead: {prototypes: 8}",
            "head.prototypes: SimDINOv2 has no prototypes: must be 0 (got 8)",
        ),
        (
            "method: simdinov2\nmodel: {mask_token: false}",
            "model.mask_token: SimDINOv2 masks patches: must be true unless ibot.loss_weight is 0",
        ),
        (
            "head: {separate_patch_head: true}",
            "head.separate_patch_head: SimDINO with these settings has no loss on patches: must be \
             false",
        ),
        (
            "method: dino\ndino: {centering: sinkhorn_knopp}",
            "dino.centering: must be softmax for DINO; only DINOv2 supports sinkhorn_knopp",
        ),
        (
            "method: dinov2\ntrain: {batch_size: 12}\nkoleo: {groups: 12}",
            "koleo.groups: a group needs at least 2 images (got 12 groups for train.batch_size \
             12); koleo.groups=6 or train.batch_size=24 would do",
        ),
        (
            "method: dinov2\nhead: {prototypes: 1}",
            "head.prototypes: DINOv2 needs at least 2 (got 1)",
        ),
        (
            "head: {out_dim: 1}",
            "head.out_dim: SimDINO spreads features over several directions, so it needs at least \
             2 (got 1)",
        ),
        (
            "method: dinov2\nhead: {patch_out_dim: 8}",
            "head.patch_out_dim: must be null unless head.separate_patch_head is true",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(problems(&format!("{GOOD}{text}\n"), &[]), [expected], "{text}");
    }
}

#[test]
fn a_group_of_one_image_is_refused_with_a_way_out() {
    let start = "simdino.rate_groups: a group needs at least 2 images";
    for (batch, groups, passes, ways) in [
        (1, 8, 1, "train.batch_size=16"),
        (1, 1, 1, "train.batch_size=2"),
        (8, 8, 1, "simdino.rate_groups=4 or train.batch_size=16"),
        (4, 8, 1, "simdino.rate_groups=2 or train.batch_size=16"),
        (2, 2, 1, "simdino.rate_groups=1 or train.batch_size=4"),
        (8, 8, 4, "simdino.rate_groups=4 or train.batch_size=16"),
        (4, 4, 4, "train.batch_size=8"), // four passes need at least four groups
    ] {
        let overrides = [
            format!("train.batch_size={batch}"),
            format!("simdino.rate_groups={groups}"),
            format!("train.accumulate={passes}"),
        ];
        let found = problems(GOOD, &overrides.each_ref().map(String::as_str));
        let expected =
            format!("{start} (got {groups} groups for train.batch_size {batch}); {ways} would do");
        assert_eq!(found, [expected], "{overrides:?}");
        // Each recommendation is valid.
        for way in ways.split(" or ") {
            let overrides = [&overrides[..], &[way.to_owned()]].concat();
            let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
            assert_eq!(problems(GOOD, &overrides), Vec::<String>::new(), "{overrides:?}");
        }
    }
    // DINO does not compare the images of a batch.
    assert_eq!(problems(GOOD, &["method=dino", "train.batch_size=1"]), Vec::<String>::new());
    // The search for a recommendation must be fast even for absurd numbers.
    let absurd =
        ["train.batch_size=4611686018427387903", "simdino.rate_groups=4611686018427387902"];
    assert_eq!(problems(GOOD, &absurd).len(), 1);
}

#[test]
fn of_two_ways_to_give_the_groups_the_last_one_applies_and_both_at_once_are_refused() {
    let of = |text: &str, overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        let config = parse(&format!("data: {{path: a}}\n{text}"), "c.yaml", &overrides).unwrap();
        (config.simdino.rate_groups, config.simdino.group_rows)
    };
    let rows = "simdino: {group_rows: 16}";
    assert_eq!(of(rows, &[]), (8, Some(16)));
    assert_eq!(of(rows, &["simdino.rate_groups=4"]), (4, None));
    assert_eq!(of("simdino: {rate_groups: 2}", &["simdino.group_rows=16"]), (8, Some(16)));
    assert_eq!(
        of("simdino: {rate_groups: 8, group_rows: 16}", &[]),
        (8, Some(16)),
        "written with all keys"
    );
    assert_eq!(of(rows, &["simdino.group_rows=null", "simdino.rate_groups=4"]), (4, None));
    let both =
        "simdino.group_rows and simdino.rate_groups: mutually exclusive; give only one of them";
    assert_eq!(problems("data: {path: a}\nsimdino: {rate_groups: 2, group_rows: 16}", &[]), [both]);
    let overrides = ["simdino.group_rows=16", "simdino.rate_groups=4"];
    assert_eq!(problems("data: {path: a}", &overrides), [both]);
}
