use fulmar_broker::state::command::{Batch, Claim, Command, Limits};
use fulmar_broker::{Generation, LogTime, NodeId, SessionKey};
use fulmar_platform::TENANT;
use fulmar_platform::registry::{Change, Expect};

use super::*;

#[test]
fn a_device_at_a_dead_node_is_not_shown_online() {
    let put = |record| Command::Registry(Box::new(Change::Put { record, expect: Expect::Absent }));
    let (node, generation) = (NodeId(1), Generation(1));
    let app = App { id: "a".into(), name: "a".into(), default: true, created_ms: 1 };
    let claim = Claim {
        key: SessionKey::new(TENANT, Dialect::Aliyun.as_str(), "p_d"),
        node,
        generation,
        clean_start: true,
        expiry_s: 0,
        will: None,
        exclusive_client_id: None,
        judged_by: None,
    };
    let mut state = State::new(Limits::default());
    let mut seq = 0;
    let mut run = |state: &mut State, commands: Vec<Command>| {
        seq += 1;
        let batch = Batch { node, generation, seq, term: None, at: LogTime(1_000), commands };
        state.apply(&batch, &mut Vec::new()).expect("a batch in its turn");
    };
    let seen = |state: &State| {
        let (kept, presence) = state.registry().device("p_d").expect("it is there");
        DeviceView::of(state.registry(), kept, presence).seen_by(state).status()
    };
    run(
        &mut state,
        vec![
            Command::NodeUp { node, generation, address: "".into() },
            put(Record::App(Arc::new(app))),
            put(Record::Product(Arc::new(Product::new("p", "a", Dialect::Aliyun, 1)))),
            put(Record::Device(Arc::new(Device::new("p", "a", "d", 1)))),
        ],
    );
    assert_eq!(seen(&state), "INACTIVE");
    run(&mut state, vec![Command::Claim(Box::new(claim))]);
    assert_eq!(seen(&state), "ONLINE");
    let down = Command::NodeDown { node, generation };
    let by_another =
        Batch { node: NodeId(2), generation, seq: 1, term: None, at: LogTime(2_000), commands: vec![down] };
    state.apply(&by_another, &mut Vec::new()).expect("another run's first batch");
    assert!(state.registry().device("p_d").expect("it is there").1.online, "it is settled later");
    assert_eq!(seen(&state), "OFFLINE");
}
