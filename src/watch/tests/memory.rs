//! What an idle watch costs.

use super::store::config;
use crate::api::WatchCreate;
use crate::watch::Watches;

#[test]
fn an_idle_watch_takes_little_memory() {
    const COUNT: usize = 1 << 17;
    let mut watches = Watches::new(config());
    let streams: Vec<_> = (0..16u32).map(|owner| watches.open(owner)).collect();
    for number in 0..COUNT {
        let key = format!("/registry/pods/{number:08}");
        let create = WatchCreate {
            key: key.as_bytes(),
            start_revision: 1,
            ..WatchCreate::default()
        };
        let stream = streams[number % streams.len()];
        watches.create(stream, &create, 0, 0).unwrap();
    }
    // The allocator adds a header and rounding to each key.
    let bytes = (watches.memory() + COUNT * 16) / COUNT;
    assert!(bytes <= 150, "{bytes} bytes each");
    for stream in streams {
        watches.close(stream);
    }
    assert!(watches.is_empty());
}
