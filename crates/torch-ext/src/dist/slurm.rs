//! Parsers of SLURM's compressed lists.

/// Returns the first machine of a list such as `rack[0-1]node[07-12,20],login`: `rack0node07`.
pub(super) fn first_host(list: &str) -> Option<String> {
    let mut host = String::new();
    let mut rest = list.trim();
    loop {
        let end = rest.find([',', '[']).unwrap_or(rest.len());
        host.push_str(&rest[..end]);
        let Some(range) = rest[end..].strip_prefix('[') else { break };
        let close = range.find(']')?;
        let first = range[..close].split([',', '-']).next()?;
        if first.is_empty() {
            return None;
        }
        host.push_str(first);
        rest = &range[close + 1..];
    }
    (!host.is_empty()).then_some(host)
}

/// Returns the number of tasks on the machine numbered `node`, from a list such as `4(x3),2`.
pub(super) fn tasks_of_node(list: &str, node: usize) -> Option<usize> {
    let mut before = 0;
    for part in list.trim().split(',') {
        let (tasks, times) = match part.split_once("(x") {
            None => (part, 1),
            Some((tasks, times)) => (tasks, times.strip_suffix(')')?.parse().ok()?),
        };
        let tasks = tasks.parse().ok()?;
        before += times;
        if node < before {
            return Some(tasks);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_machine_of_each_form() {
        for (list, host) in [
            ("node7", Some("node7")),
            ("node7,node9", Some("node7")),
            ("node[007-012,020],login", Some("node007")),
            ("node[3,5-9]", Some("node3")),
            ("rack[0-1]node[07-12]-ib,x", Some("rack0node07-ib")),
            ("", None),
            (",a", None),
            ("node[1-2", None),
            ("node[]", None),
        ] {
            assert_eq!(first_host(list).as_deref(), host, "{list}");
        }
    }

    #[test]
    fn tasks_of_each_machine() {
        let list = "4(x2),3,1(x2)";
        let tasks: Vec<_> = (0..6).map(|node| tasks_of_node(list, node)).collect();
        assert_eq!(tasks, [Some(4), Some(4), Some(3), Some(1), Some(1), None]);
        for broken in ["", "x", "4(x", "4(x2", "4(xy)"] {
            assert_eq!(tasks_of_node(broken, 0), None, "{broken}");
        }
    }
}
