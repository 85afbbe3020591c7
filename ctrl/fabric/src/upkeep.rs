//! Sees to it that what the fabric made on its host stays there: [`follow`] looks whenever something
//! may have changed, puts back once what another program took away, and says so. What cannot be put
//! back, or was taken away again, makes the fabric not ready, by a sentence in `status`.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::live::Live;
use crate::progress::duration;
use api::EventKind;
use host::alarm::{Concern, HostAlarm};
use host::upkeep::{Looked, Ours, Trouble};
use model::difference::FabricPlan;

/// The pause before a look: programs change several things one after another, and some take away
/// only to put back at once.
const SETTLE: Duration = Duration::from_millis(100);

/// A thing that is taken away again within this time after it was put back is left alone: two
/// programs that each undo what the other does would never end.
const NO_FIGHT: Duration = Duration::from_secs(600);

/// The longest time between two looks. A change of which the kernel sends no word is found by then.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);

/// The subject of these events.
const HOST: &str = "host";

/// What is known of the fabric's things on its host.
#[derive(Debug, Default)]
pub(crate) struct Upkeep(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    troubles: Vec<Trouble>,
    /// When each thing was put back last.
    put_back: Vec<(Ours, Instant)>,
    /// What could not be put back, and why.
    failed: Vec<(Ours, String)>,
    /// Why the host could not be read.
    unreadable: Option<String>,
}

impl Upkeep {
    /// What is wrong now, a sentence for each.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.lock().sentences()
    }

    /// What was put back lately, a sentence for each. The fabric is well.
    pub(crate) fn put_back(&self) -> Vec<String> {
        let now = Instant::now();
        let known = self.lock();
        let recent = known.recent(now).filter(|(ours, _)| !known.misses(ours));
        let sentence = |(ours, at): &(Ours, Instant)| {
            let ago = duration(Duration::from_secs((now - *at).as_secs()));
            format!("another program took away {ours} {ago} ago: put back")
        };
        recent.map(sentence).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

impl Known {
    fn recent(&self, now: Instant) -> impl Iterator<Item = &(Ours, Instant)> {
        let is_recent = move |(_, at): &&(Ours, Instant)| now - *at < NO_FIGHT;
        self.put_back.iter().filter(is_recent)
    }

    fn misses(&self, ours: &Ours) -> bool {
        self.troubles.contains(&Trouble::Gone(ours.clone()))
    }

    /// What is left alone if it is gone.
    fn to_leave(&self, now: Instant) -> Vec<Ours> {
        self.recent(now).map(|(ours, _)| ours.clone()).collect()
    }

    fn sentences(&self) -> Vec<String> {
        let troubles = self.troubles.iter().map(|trouble| self.sentence(trouble));
        troubles.chain(self.unreadable.clone()).collect()
    }

    /// Whether this is the sentence about a route of others.
    fn is_shadow(&self, sentence: &str) -> bool {
        let shadows = |trouble: &Trouble| matches!(trouble, Trouble::Shadowed { .. });
        let mut found = self.troubles.iter().filter(|it| shadows(it));
        found.any(|trouble| self.sentence(trouble) == sentence)
    }

    fn sentence(&self, trouble: &Trouble) -> String {
        let Trouble::Gone(ours) = trouble else {
            return trouble.to_string();
        };
        if let Some((_, why)) = self.failed.iter().find(|(it, _)| it == ours) {
            return format!("{trouble}, and it could not be put back: {why}");
        }
        if self.put_back.iter().any(|(it, _)| it == ours) {
            return format!(
                "{trouble}: it was put back, and another program took it away again; find that \
                 program, then apply the fabric's configuration again (`ikv-fabric apply`)"
            );
        }
        trouble.to_string()
    }

    /// Takes in what a look has found. Returns what to tell the user.
    fn take_in(&mut self, looked: Looked, now: Instant) -> Vec<String> {
        let before = self.sentences();
        let Looked {
            left,
            put_back,
            failed,
        } = looked;
        let mut said = Vec::new();
        for ours in put_back {
            said.push(format!("another program took away {ours}: put back"));
            self.put_back.retain(|(it, _)| *it != ours);
            self.put_back.push((ours, now));
        }
        let ended = self.troubles.iter().filter(|it| !left.contains(it));
        let ended: Vec<_> = ended.map(ToString::to_string).collect();
        self.troubles = left;
        self.failed = failed;
        self.unreadable = None;
        let is_new = |sentence: &String| !before.contains(sentence);
        said.extend(self.sentences().into_iter().filter(is_new));
        // What was put back is said already.
        if said.is_empty() {
            said.extend(ended.into_iter().map(|it| format!("no longer so: {it}")));
        }
        said
    }
}

/// What of the host's configuration a fabric of this plan depends on.
pub(crate) fn concern(plan: &FabricPlan) -> Concern {
    let host = &plan.topology.host;
    let mut concern = Concern {
        links: vec![host.name.clone()],
        ranges: vec![host.range],
    };
    if let Some(ipmi) = &plan.topology.ipmi {
        concern.links.push(ipmi.name.clone());
        concern.ranges.push(ipmi.address.trunc());
    }
    concern
}

/// Follows the host until dropped.
pub(crate) async fn follow(live: Arc<Live>, mut alarm: HostAlarm) {
    loop {
        // At first too: the host may have changed while the fabric came up.
        look(&live, false).await;
        match timeout(LOOK_ANYWAY, alarm.ring()).await {
            Ok(Ok(())) => sleep(SETTLE).await,
            Err(_) => {}
            Ok(Err(error)) => {
                live.notices.add(format!(
                    "the host's network is no longer watched: {error}; restart the fabric"
                ));
                return;
            }
        }
    }
}

/// Looks at the host, and puts back what is missing. `again`: also what was put back lately.
pub(crate) async fn look(live: &Live, again: bool) {
    let now = Instant::now();
    let leave = if again {
        Vec::new()
    } else {
        live.upkeep.lock().to_leave(now)
    };
    let looked = live.host.change(move |host| host.look_after(&leave)).await;
    let said = match looked {
        // The fabric is being taken down.
        Err(_) => return,
        Ok(Ok(looked)) => live.upkeep.lock().take_in(looked, Instant::now()),
        Ok(Err(error)) => {
            let why = format!("what the fabric made on the host cannot be looked at: {error}");
            let before = live.upkeep.lock().unreadable.replace(why.clone());
            Vec::from_iter((before.as_ref() != Some(&why)).then_some(why))
        }
    };
    for sentence in said {
        let kind = if live.upkeep.lock().is_shadow(&sentence) {
            EventKind::RouteShadowed
        } else {
            EventKind::Host
        };
        live.notices.say(kind, HOST, sentence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(left: &[Trouble], put_back: &[Ours]) -> Looked {
        Looked {
            left: left.to_vec(),
            put_back: put_back.to_vec(),
            failed: Vec::new(),
        }
    }

    #[test]
    fn what_is_put_back_is_said_and_left_alone_for_a_while() {
        let mut known = Known::default();
        let start = Instant::now();
        let said = known.take_in(looked(&[], &[Ours::Tables]), start);
        assert_eq!(
            said,
            ["another program took away the fabric's nftables tables: put back"]
        );
        assert!(known.sentences().is_empty());
        assert_eq!(known.to_leave(start + NO_FIGHT / 2), [Ours::Tables]);
        assert!(known.to_leave(start + NO_FIGHT).is_empty());
    }

    #[test]
    fn what_is_taken_away_again_is_said_once() {
        let mut known = Known::default();
        let start = Instant::now();
        known.take_in(looked(&[], &[Ours::Tables]), start);
        let gone = [Trouble::Gone(Ours::Tables)];
        let said = known.take_in(looked(&gone, &[]), start);
        assert!(said[0].contains("took it away again"), "{said:?}");
        assert_eq!(known.sentences(), said);
        assert!(known.take_in(looked(&gone, &[]), start).is_empty());
        // `apply` has put it back.
        let said = known.take_in(looked(&[], &[Ours::Tables]), start);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(known.sentences().is_empty());
    }

    #[test]
    fn a_shadow_is_said_when_it_comes_and_when_it_goes() {
        let mut known = Known::default();
        let shadow = Trouble::Shadowed {
            range: "192.168.96.0/19".parse().unwrap(),
            part: "192.168.112.0/20".parse().unwrap(),
            link: "br-y".into(),
        };
        let now = Instant::now();
        let said = known.take_in(looked(std::slice::from_ref(&shadow), &[]), now);
        assert!(said[0].contains("shadowed by 192.168.112.0/20 on br-y"));
        assert!(known.is_shadow(&said[0]) && !known.is_shadow("another sentence"));
        let said = known.take_in(looked(&[], &[]), now);
        assert!(said[0].starts_with("no longer so: "), "{said:?}");
    }

    #[test]
    fn what_cannot_be_put_back_has_its_reason() {
        let mut known = Known::default();
        let failed = Looked {
            left: vec![Trouble::Gone(Ours::Tables)],
            put_back: Vec::new(),
            failed: vec![(Ours::Tables, "nft is not installed".into())],
        };
        let said = known.take_in(failed, Instant::now());
        assert!(
            said[0].ends_with("could not be put back: nft is not installed"),
            "{said:?}"
        );
    }
}
