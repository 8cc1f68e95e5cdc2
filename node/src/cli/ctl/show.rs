//! The members as people and programs read them.

use fulmar_proto::admin::v1::{ListMembersResponse, Member};
use serde_json::{Value, json};

use super::id;

/// A line for each member, the columns as wide as they must be; then what holds for all of them.
pub(super) fn table(members: &ListMembersResponse) -> String {
    let mut rows = vec![["NODE", "ROLE", "STATE", "SESSIONS", "BEHIND", "RUN", "ADDRESS"].map(str::to_owned)];
    rows.extend(members.members.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut lines: Vec<String> = rows.iter().map(|row| line(row, &widths)).collect();
    let leader = match members.leader {
        0 => "nobody leads: a majority of the voters must be up".to_owned(),
        leader => format!("{} leads in term {}", id(leader), members.term),
    };
    lines.push(String::new());
    lines.push(format!("cluster {}: {leader}", id(members.cluster)));
    lines.push(format!("as seen by {}, which has applied entry {}", id(members.node), members.applied));
    lines.join("\n")
}

fn row(member: &Member) -> [String; 7] {
    let address = if member.address.is_empty() { "-" } else { &member.address };
    [
        id(member.node),
        member.role.clone(),
        state(member).to_owned(),
        member.sessions.to_string(),
        member.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
        member.generation.to_string(),
        address.to_owned(),
    ]
}

fn state(member: &Member) -> &'static str {
    if member.alive { "up" } else { "down" }
}

/// Words to the left, numbers to the right.
fn line(row: &[String; 7], widths: &[usize; 7]) -> String {
    let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
        3..=5 => format!("{cell:>width$}"),
        _ => format!("{cell:<width$}"),
    });
    cells.collect::<Vec<String>>().join("  ").trim_end().to_owned()
}

/// The same for programs: ids as 16 hex digits, `leader` and `lag` null where they are not known.
pub(super) fn json(members: &ListMembersResponse) -> String {
    let member = |member: &Member| {
        json!({
            "node": id(member.node),
            "address": member.address,
            "role": member.role,
            "alive": member.alive,
            "generation": member.generation,
            "sessions": member.sessions,
            "lag": member.lag,
        })
    };
    let all = json!({
        "cluster": id(members.cluster),
        "leader": (members.leader != 0).then(|| id(members.leader)),
        "term": members.term,
        "applied": members.applied,
        "node": id(members.node),
        "members": members.members.iter().map(member).collect::<Vec<Value>>(),
    });
    format!("{all:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> ListMembersResponse {
        let member = |node, role: &str, alive, sessions, lag, address: &str| Member {
            node,
            address: address.to_owned(),
            role: role.to_owned(),
            alive,
            generation: 3,
            sessions,
            lag,
        };
        ListMembersResponse {
            cluster: 0x5f,
            leader: 0x0218_d8f8_0d80_20ec,
            term: 4,
            applied: 1_234,
            node: 0x0218_d8f8_0d80_20ec,
            members: vec![
                member(0x0218_d8f8_0d80_20ec, "leader", true, 12_345, Some(0), "127.0.0.1:21008"),
                member(0x77, "voter", false, 0, Some(17), "127.0.0.1:21108"),
                member(0xff, "learner", true, 3, None, ""),
            ],
        }
    }

    #[test]
    fn columns_are_aligned() {
        let wanted = "\
NODE              ROLE     STATE  SESSIONS  BEHIND  RUN  ADDRESS
0218d8f80d8020ec  leader   up        12345       0    3  127.0.0.1:21008
0000000000000077  voter    down          0      17    3  127.0.0.1:21108
00000000000000ff  learner  up            3       -    3  -

cluster 000000000000005f: 0218d8f80d8020ec leads in term 4
as seen by 0218d8f80d8020ec, which has applied entry 1234";
        assert_eq!(table(&members()), wanted);
        let headless = ListMembersResponse { leader: 0, ..members() };
        assert!(table(&headless).contains("nobody leads"));
    }

    #[test]
    fn json_says_the_same() {
        let value: Value = serde_json::from_str(&json(&members())).expect("JSON");
        assert_eq!(value["leader"], "0218d8f80d8020ec");
        assert_eq!(value["members"][1]["node"], "0000000000000077");
        assert_eq!((&value["members"][1]["lag"], &value["members"][2]["lag"]), (&json!(17), &Value::Null));
        let headless = ListMembersResponse { leader: 0, ..members() };
        let value: Value = serde_json::from_str(&json(&headless)).expect("JSON");
        assert_eq!(value["leader"], Value::Null);
    }
}
