use super::*;

fn incident(what: What, reason: &str, topic: &str) -> (u64, Incident) {
    let (reason, topic) = (reason.to_owned(), topic.to_owned());
    (7, Incident { what, reason, topic, epoch: 3, count: 2, first_ms: 900, last_ms: 1_000 })
}

fn session(owner: Option<u64>, queued: u64, qos: Option<u8>) -> Option<SessionFacts> {
    let matching = qos.map(|qos| Matching { filter: "t/#".to_owned(), qos, no_local: false });
    Some(SessionFacts {
        owner,
        epoch: 3,
        persistent: true,
        queued,
        queued_bytes: queued,
        queued_max: 10,
        queued_bytes_max: 1_000,
        matching: matching.into_iter().collect(),
    })
}

#[test]
fn each_cause_is_found_first_where_it_is_the_cause() {
    let base = Facts { client: "c".into(), topic: Some("t/1".into()), now_ms: 2_000, ..Facts::default() };
    let connected = session(Some(7), 0, Some(1));
    let with =
        |session: Option<SessionFacts>, incidents: Vec<(u64, Incident)>| Facts { session, incidents, ..base.clone() };
    let rule = |nodes: Vec<RuleOnNode>, active: bool, backlog: u64| Facts {
        client: String::new(),
        rule: Some(RuleFacts { id: "r".into(), exists: true, active, filter: "a > 1".into(), nodes, backlog }),
        ..base.clone()
    };
    let sink = ActionOnNode { id: "a".into(), retried: 3, error: Some(("refused".into(), 5)), ..Default::default() };
    let live = LiveFacts { node: 7, unacknowledged: 2, receive_maximum: 2, queued: 1, ..LiveFacts::default() };
    for (facts, cause) in [
        (with(session(None, 3, Some(1)), vec![]), Cause::OfflineAndCached),
        (with(session(None, 10, Some(1)), vec![]), Cause::QueueFull),
        (with(connected.clone(), vec![incident(What::Dropped, "queue_full", "t/1")]), Cause::QueueFull),
        (with(session(Some(7), 0, None), vec![incident(What::SubscribeDenied, "", "t/#")]), Cause::NoPermission),
        (with(session(Some(7), 0, None), vec![incident(What::SubscribeDenied, "", "u/#")]), Cause::NotSubscribed),
        (with(connected.clone(), vec![incident(What::PublishDenied, "", "t/1")]), Cause::NoPermission),
        (with(connected.clone(), vec![incident(What::Expired, "", "t/1")]), Cause::Expired),
        (with(None, vec![incident(What::ConnectRefused, "banned", "")]), Cause::Banned),
        (with(None, vec![incident(What::ConnectRefused, "wrong password", "")]), Cause::ConnectRefused),
        (with(connected.clone(), vec![incident(What::TakenOver, "", "")]), Cause::SupersededOwner),
        (with(connected.clone(), vec![incident(What::QosLowered, "2 to 1", "t/#")]), Cause::QosDowngrade),
        (with(session(None, 0, Some(0)), vec![]), Cause::QosDowngrade),
        (Facts { registered: true, ..base.clone() }, Cause::NeverConnected),
        (base.clone(), Cause::UnknownClient),
        (Facts { bans: vec!["client c".into()], ..base.clone() }, Cause::Banned),
        (Facts { frozen: true, registered: true, ..base.clone() }, Cause::FrozenDevice),
        (Facts { live: vec![live], ..with(connected.clone(), vec![]) }, Cause::ReceiveMaximum),
        (with(connected.clone(), vec![]), Cause::NothingFound),
        (rule(vec![RuleOnNode { unmatched: 4, ..RuleOnNode::default() }], true, 0), Cause::RuleFiltered),
        (rule(vec![RuleOnNode { matched: 4, actions: vec![sink], ..RuleOnNode::default() }], true, 3), Cause::SinkDown),
        (rule(vec![], false, 0), Cause::RuleInactive),
    ] {
        let found = findings(&facts);
        assert_eq!(found[0].cause, cause, "{found:#?}");
        assert!(found.windows(2).all(|pair| pair[0].weight >= pair[1].weight));
        assert!(!found[0].sentence.is_empty() && !found[0].advice.is_empty());
    }
}

#[test]
fn what_is_long_ago_is_less_likely() {
    let old = Facts {
        client: "c".into(),
        now_ms: 1_000 + 2 * RECENT_MS,
        session: session(None, 3, Some(1)),
        incidents: vec![incident(What::Dropped, "queue_full", "t/1")],
        ..Facts::default()
    };
    assert_eq!(findings(&old)[0].cause, Cause::OfflineAndCached);
}
