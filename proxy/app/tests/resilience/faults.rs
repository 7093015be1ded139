//! Faults on purpose.

use crate::world::{Does, ms, run, set};
use policy::{
    BackendSettings, Settings, TextMatch, ValueMatch,
    filter::Share,
    settings::{Abort, Fault, Timeouts},
};

fn fault(fault: Fault) -> Settings {
    Settings { fault: set(fault), ..Settings::default() }
}

#[test]
fn an_abort_is_told_as_what_it_is() {
    let abort = fault(Fault { abort: Some((Abort::Http(418), Share::ALL)), ..Fault::default() });
    run(
        1,
        abort,
        BackendSettings::default(),
        |_, _| Does::Status(200),
        |world| async move {
            let heard = world.get().await;
            assert_eq!((heard.status, world.count()), (418, 0));
            assert!(heard.text.contains("error=fault_injected"), "{heard:?}");
            assert!(heard.text.contains("fault.abort of TrafficPolicy shop/mine"), "{heard:?}");
            assert_eq!(world.metric("weft_reasons_total", "fault_injected"), 1);
        },
    );
}

#[test]
fn a_delay_holds_a_request_up_within_its_time() {
    let delay = Fault { delay: Some((ms(300), Share::ALL)), ..Fault::default() };
    run(
        1,
        fault(delay.clone()),
        BackendSettings::default(),
        |_, _| Does::Status(200),
        |world| async move {
            let heard = world.get().await;
            assert_eq!((heard.status, heard.took), (200, ms(300)));
        },
    );
    let timeouts = Timeouts { request: set(ms(200)), ..Timeouts::default() };
    let settings = Settings { timeouts, ..fault(delay) };
    run(
        1,
        settings,
        BackendSettings::default(),
        |_, _| Does::Status(200),
        |world| async move {
            let heard = world.get().await;
            assert_eq!((heard.status, heard.took, world.count()), (504, ms(200), 0));
        },
    );
}

#[test]
fn a_share_of_those_that_are_meant_suffers() {
    let quarter = Share { numerator: 25, denominator: 100 };
    let meant = ValueMatch { name: "x-chaos".into(), value: TextMatch::Exact("yes".into()) };
    let abort = Fault { headers: vec![meant], abort: Some((Abort::Http(500), quarter)), delay: None };
    run(
        1,
        fault(abort),
        BackendSettings::default(),
        |_, _| Does::Status(200),
        |world| async move {
            let mut aborted = 0;
            for _ in 0..400 {
                let heard = world
                    .say("GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\nX-Chaos: yes\r\n\r\n")
                    .await;
                aborted += usize::from(heard.status == 500);
                assert_eq!(world.get().await.status, 200, "without the field");
            }
            assert!((70..130).contains(&aborted), "{aborted} of 400");
        },
    );
}
