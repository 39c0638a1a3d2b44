//! Roles of the networks in a file, according to the prefixes of their keys.

/// Words for the network that slowly follows another, the more reliable ones first.
const FOLLOWS: [&str; 6] = ["teacher", "ema", "momentum", "target", "k", "key"];
/// Words for the network that is trained.
const TRAINED: [&str; 7] = ["student", "online", "q", "query", "base", "context", "live"];
/// Words for a network that is neither: DINOv3 keeps an old teacher as the anchor of Gram
/// matrices.
const NEITHER: [&str; 3] = ["gram", "anchor", "predictor"];

/// Which network of a training checkpoint to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The moving average, which is the result of training; the only network if there is just one.
    #[default]
    Teacher,
    /// The network that is trained.
    Student,
}

impl Role {
    /// Returns the name, `teacher` or `student`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Teacher => "teacher",
            Self::Student => "student",
        }
    }

    /// Returns the name of the weight file in a checkpoint of simdino, and in the folder `weights`
    /// of a run.
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Teacher => "teacher.safetensors",
            Self::Student => "student.safetensors",
        }
    }
}

/// Interprets the words of a prefix such as `teacher_backbone.`, `state_dict_ema.`, or
/// `encoder_q.`: the role, and how reliable it is (smaller is more reliable).
fn stated(prefix: &str) -> Option<(Role, usize)> {
    let words = || prefix.split(['.', '_', '-']);
    let place = |table: &[&str]| words().filter_map(|w| table.iter().position(|t| *t == w)).min();
    if place(&NEITHER).is_some() {
        return None;
    }
    match (place(&FOLLOWS), place(&TRAINED)) {
        (Some(rank), _) => Some((Role::Teacher, rank)), // `student_ema` is the average too
        (None, Some(rank)) => Some((Role::Student, rank)),
        (None, None) => None,
    }
}

/// Returns the role that the prefix of a network states, if any.
pub(super) fn role(prefix: &str) -> Option<Role> {
    stated(prefix).map(|(role, _)| role)
}

/// Returns the index of the prefix for `role`; `None` if there is none, or several that are
/// equally reliable.
///
/// Given a network without a role and one that follows it (`backbone.` and `momentum_backbone.`),
/// the former is the student.
pub(super) fn find(prefixes: &[&str], role: Role) -> Option<usize> {
    let roles: Vec<_> = prefixes.iter().map(|prefix| stated(prefix)).collect();
    let of_role = || {
        let all = roles.iter().enumerate();
        all.filter_map(|(i, stated)| stated.filter(|&(r, _)| r == role).map(|(_, rank)| (rank, i)))
    };
    match of_role().map(|(rank, _)| rank).min() {
        Some(best) => only(of_role().filter(|&(rank, _)| rank == best).map(|(_, i)| i)),
        None if role == Role::Student && roles.iter().any(Option::is_some) => {
            only((0..roles.len()).filter(|&i| roles[i].is_none() && !neither(prefixes[i])))
        }
        None => None,
    }
}

fn neither(prefix: &str) -> bool {
    prefix.split(['.', '_', '-']).any(|word| NEITHER.contains(&word))
}

fn only(mut indices: impl Iterator<Item = usize>) -> Option<usize> {
    indices.next().filter(|_| indices.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_the_field_are_told_apart() {
        for [teacher, student] in [
            ["teacher.backbone.", "student.backbone."],
            ["state_dict.teacher_backbone.", "state_dict.student_backbone."],
            ["state_dict.momentum_backbone.", "state_dict.backbone."],
            ["teacher_embedding_model.wrapped.", "student_embedding_model.wrapped."],
            ["state_dict_ema.", "state_dict."],
            ["model_ema.", "model."],
            ["ema_model.", "model."],
            ["teacher_ema.", "student."],
            ["encoder_k.", "encoder_q."],
            ["target_encoder.", "encoder."],
            ["target_encoder.", "context_encoder."],
            ["momentum_encoder.", "base_encoder."],
            ["target_network.encoder.", "online_network.encoder."],
            ["backbone_ema.", "backbone."],
        ] {
            for pair in [[teacher, student], [student, teacher]] {
                let at = |prefix| pair.iter().position(|p| *p == prefix);
                assert_eq!(find(&pair, Role::Teacher), at(teacher), "{pair:?}");
                assert_eq!(find(&pair, Role::Student), at(student), "{pair:?}");
            }
        }
    }

    #[test]
    fn what_is_not_sure_is_not_guessed() {
        assert_eq!(find(&["a.", "b."], Role::Teacher), None);
        assert_eq!(find(&["a.", "b."], Role::Student), None);
        assert_eq!(find(&["teacher.a.", "teacher.b."], Role::Teacher), None);
        assert_eq!(find(&["student.", "other."], Role::Teacher), None);
        assert_eq!(find(&["a.", "b.", "teacher."], Role::Student), None);
        let dinov3 = ["gram_teacher.backbone.", "model_ema.backbone.", "teacher.backbone."];
        assert_eq!(find(&dinov3, Role::Teacher), Some(2));
        assert_eq!(find(&dinov3, Role::Student), None);
    }
}
