//! The trial of a store: whether it really has the properties that the protocol relies on.
//!
//! Everything is written under one fresh prefix in `state/` and removed again. evbus reads nothing
//! in `state/` but the folders of groups, by their names, so it never finds this prefix.

use std::fmt;

use futures_util::future::join;

use crate::clock::Clock;
use crate::store::{List, Put, Store, StoreError, StoreResult, Swap, Version};

/// A property that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// Of two writers that create one key exactly one wins, and its content stays.
    Create,
    /// A register is replaced from its version, and from no other.
    Swap,
    /// Keys are listed in byte order.
    Order,
    /// A listing begins right after the key it was told.
    StartAfter,
    /// A listing stops at its limit and says so.
    Limit,
    /// What was put is listed at once.
    ListAfterPut,
    /// What was deleted is gone at once, and may be deleted twice.
    Delete,
}

impl Property {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 7] =
        [Self::Create, Self::Swap, Self::Order, Self::StartAfter, Self::Limit, Self::ListAfterPut, Self::Delete];
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Create => "create",
            Self::Swap => "swap",
            Self::Order => "list",
            Self::StartAfter => "start after",
            Self::Limit => "limit",
            Self::ListAfterPut => "list after put",
            Self::Delete => "delete",
        })
    }
}

/// The result of one trial: in order, or what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeFinding {
    /// What was tried.
    pub property: Property,
    /// What was wrong.
    pub outcome: Result<(), String>,
    /// What is right, and costs more than it should.
    pub warning: Option<String>,
}

/// Tries every property on a store and cleans up.
pub async fn probe(store: &dyn Store, clock: &dyn Clock) -> Vec<ProbeFinding> {
    let trial = Trial { store, prefix: format!("state/probe-{:016x}/", clock.random()) };
    let mut findings = Vec::new();
    for property in Property::ALL {
        let outcome = match trial.run(property).await {
            Ok(outcome) => outcome,
            Err(error) => Err(error.to_string()),
        };
        let warning = (property == Property::StartAfter && outcome.is_ok() && store.began_early()).then(|| {
            "the server ignores it: each poll lists all that is stored, and its cost grows with that".to_owned()
        });
        findings.push(ProbeFinding { property, outcome, warning });
    }
    if let (Err(error), Some(last)) = (trial.clean_up().await, findings.last_mut().filter(|last| last.outcome.is_ok()))
    {
        last.outcome = Err(format!("{} could not be removed: {error}", trial.prefix));
    }
    findings
}

struct Trial<'a> {
    store: &'a dyn Store,
    prefix: String,
}

/// In order, or what is wrong; or the store's own error.
type ProbeResult = StoreResult<Result<(), String>>;

fn expect(is_so: bool, otherwise: &str) -> ProbeResult {
    Ok(if is_so { Ok(()) } else { Err(otherwise.to_owned()) })
}

impl Trial<'_> {
    async fn run(&self, property: Property) -> ProbeResult {
        match property {
            Property::Create => self.create().await,
            Property::Swap => self.swap().await,
            Property::Order => self.order().await,
            Property::StartAfter => self.start_after().await,
            Property::Limit => self.limit().await,
            Property::ListAfterPut => self.list_after_put().await,
            Property::Delete => self.delete().await,
        }
    }

    fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    async fn put(&self, rest: &str) -> StoreResult<Put> {
        self.store.put_new(&self.key(rest), b"{}").await
    }

    /// The rests of the keys listed under `folder`.
    async fn list(&self, folder: &str, after: &str, limit: usize) -> StoreResult<(Vec<String>, bool)> {
        let after = if after.is_empty() { String::new() } else { self.key(after) };
        let page = self.store.list_after(List::all(&self.key(folder)).after(after).limit(limit)).await?;
        let rest = |key: &String| key.strip_prefix(&self.prefix).map(str::to_owned);
        Ok((page.keys.iter().filter_map(rest).collect(), page.is_truncated))
    }

    async fn create(&self) -> ProbeResult {
        let key = self.key("create/one.json");
        let (first, second) = join(self.store.put_new(&key, b"1"), self.store.put_new(&key, b"2")).await;
        let winner: &[u8] = match (first?, second?) {
            (Put::Created, Put::Exists) => b"1",
            (Put::Exists, Put::Created) => b"2",
            (Put::Created, Put::Created) => return Ok(Err("two creators of one key both won".to_owned())),
            // Some servers refuse both contenders of a race, which then try again; a server that
            // refuses a third try is no store.
            (Put::Exists, Put::Exists) => match self.store.put_new(&key, b"1").await? {
                Put::Created => b"1",
                Put::Exists => return Ok(Err("two creators of one key both lost".to_owned())),
            },
        };
        if self.store.put_new(&key, b"3").await? != Put::Exists {
            return Ok(Err("a key can be created twice".to_owned()));
        }
        let kept = self.store.get(&key).await?.is_some_and(|object| object.bytes == winner);
        expect(kept, "the loser's content is there, or none")
    }

    async fn swap(&self) -> ProbeResult {
        let key = self.key("swap");
        let Swap::Swapped(one) = self.store.cas(&key, None, b"1").await? else {
            return Ok(Err("a register that is not there cannot be made".to_owned()));
        };
        if self.store.cas(&key, None, b"x").await? != Swap::Conflict {
            return Ok(Err("a register can be made twice".to_owned()));
        }
        let Swap::Swapped(two) = self.store.cas(&key, Some(&one), b"2").await? else {
            return Ok(Err("a fresh version is refused".to_owned()));
        };
        if self.store.cas(&key, Some(&one), b"x").await? != Swap::Conflict {
            return Ok(Err("a stale version is taken".to_owned()));
        }
        self.racing_swaps(&key, &two).await
    }

    async fn racing_swaps(&self, key: &str, from: &Version) -> ProbeResult {
        let (one, other) = join(self.store.cas(key, Some(from), b"3"), self.store.cas(key, Some(from), b"4")).await;
        let winner: &[u8] = match (one?, other?) {
            (Swap::Swapped(_), Swap::Conflict) => b"3",
            (Swap::Conflict, Swap::Swapped(_)) => b"4",
            // Both writers may lose to each other: they try again.
            (Swap::Conflict, Swap::Conflict) => b"2",
            (Swap::Swapped(_), Swap::Swapped(_)) => return Ok(Err("two swaps from one version both won".to_owned())),
        };
        let kept = self.store.get(key).await?.is_some_and(|object| object.bytes == winner);
        expect(kept, "a register does not hold what was swapped in")
    }

    async fn order(&self) -> ProbeResult {
        // Folders of different length, and names that only byte order sorts so.
        let sorted = [
            "order/1/b.json",
            "order/10/a.json",
            "order/2/B.json",
            "order/2/a-.json",
            "order/2/a.json",
            "order/2/a_.json",
        ];
        for rest in sorted.iter().rev() {
            let _ = self.put(rest).await?;
        }
        let (listed, _) = self.list("order/", "", usize::MAX).await?;
        expect(listed == sorted, &format!("not in byte order: {}", listed.join(" ")))
    }

    async fn start_after(&self) -> ProbeResult {
        let (listed, _) = self.list("order/", "order/10/a.json", usize::MAX).await?;
        expect(listed.first().is_some_and(|first| first == "order/2/B.json"), "a listing does not begin after its key")
    }

    async fn limit(&self) -> ProbeResult {
        let (listed, is_truncated) = self.list("order/", "", 2).await?;
        let (rest, rest_is_truncated) = self.list("order/", "order/10/a.json", 9).await?;
        let right =
            listed == ["order/1/b.json", "order/10/a.json"] && is_truncated && rest.len() == 4 && !rest_is_truncated;
        expect(right, "a listing does not stop at its limit, or does not say so")
    }

    async fn list_after_put(&self) -> ProbeResult {
        for n in 0..20 {
            let rest = format!("fresh/{n:02}.json");
            let _ = self.put(&rest).await?;
            let (listed, _) = self.list("fresh/", "", usize::MAX).await?;
            if listed.last() != Some(&rest) || listed.len() != n + 1 {
                return Ok(Err("a listing lacks what was put before it".to_owned()));
            }
        }
        Ok(Ok(()))
    }

    async fn delete(&self) -> ProbeResult {
        let _ = self.put("gone.json").await?;
        let key = self.key("gone.json");
        self.store.delete(&key).await?;
        self.store.delete(&key).await?;
        let (listed, _) = self.list("", "", usize::MAX).await?;
        let gone = self.store.get(&key).await?.is_none() && !listed.iter().any(|rest| rest == "gone.json");
        expect(gone, "what was deleted is still there")
    }

    async fn clean_up(&self) -> Result<(), StoreError> {
        self.store.delete(&self.key("swap")).await?;
        let page = self.store.list_after(List::all(&self.prefix)).await?;
        self.store.delete_many(&page.keys).await?;
        let left = self.store.list_after(List::all(&self.prefix)).await?;
        for key in &left.keys {
            self.store.delete(key).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Fut, SystemClock};
    use crate::store::dir::{DirOptions, DirStore};
    use crate::store::{Hints, NoHints, Object, Page, Profile};

    fn store() -> (tempfile::TempDir, DirStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = DirStore::create(folder.path(), DirOptions::default(), &SystemClock).unwrap();
        (folder, store)
    }

    async fn failing(store: &dyn Store) -> Vec<Property> {
        let findings = probe(store, &SystemClock).await;
        findings.into_iter().filter(|finding| finding.outcome.is_err()).map(|finding| finding.property).collect()
    }

    #[tokio::test]
    async fn a_directory_passes_the_probe_and_is_left_clean() {
        let (folder, store) = store();
        let findings = probe(&store, &SystemClock).await;
        assert!(findings.iter().all(|finding| finding.outcome.is_ok()), "{findings:?}");
        assert_eq!(std::fs::read_dir(folder.path().join("state")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(folder.path().join("staging")).unwrap().count(), 0);
    }

    /// How a provider may fall short.
    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        OverwritesObjects,
        IgnoresVersions,
        ListsBackwards,
        IgnoresAfter,
        HidesTheNewest,
        KeepsDeleted,
    }

    struct Faulty {
        store: DirStore,
        fault: Fault,
    }

    impl Store for Faulty {
        fn put_new<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> Fut<'a, StoreResult<Put>> {
            Box::pin(async move {
                if self.fault == Fault::OverwritesObjects {
                    self.store.delete(key).await?;
                }
                self.store.put_new(key, bytes).await
            })
        }

        fn get<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<Option<Object>>> {
            self.store.get(key)
        }

        fn list_after(&self, list: List) -> Fut<'_, StoreResult<Page>> {
            let list = if self.fault == Fault::IgnoresAfter { list.after("") } else { list };
            Box::pin(async move {
                let mut page = self.store.list_after(list).await?;
                match self.fault {
                    Fault::ListsBackwards => page.keys.reverse(),
                    Fault::HidesTheNewest => drop(page.keys.pop()),
                    _ => {}
                }
                Ok(page)
            })
        }

        fn cas<'a>(
            &'a self,
            key: &'a str,
            version: Option<&'a Version>,
            bytes: &'a [u8],
        ) -> Fut<'a, StoreResult<Swap>> {
            Box::pin(async move {
                if self.fault == Fault::IgnoresVersions {
                    let newest = self.store.get(key).await?.map(|object| object.version);
                    return self.store.cas(key, newest.as_ref(), bytes).await;
                }
                self.store.cas(key, version, bytes).await
            })
        }

        fn delete<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<()>> {
            match self.fault {
                Fault::KeepsDeleted => Box::pin(async { Ok(()) }),
                _ => self.store.delete(key),
            }
        }

        fn hints(&self) -> Result<Box<dyn Hints>, NoHints> {
            Err(NoHints("none".to_owned()))
        }

        fn profile(&self) -> Profile {
            self.store.profile()
        }
    }

    #[tokio::test]
    async fn the_probe_finds_each_fault() {
        let table = [
            (Fault::OverwritesObjects, Property::Create),
            (Fault::IgnoresVersions, Property::Swap),
            (Fault::ListsBackwards, Property::Order),
            (Fault::IgnoresAfter, Property::StartAfter),
            (Fault::HidesTheNewest, Property::ListAfterPut),
            (Fault::KeepsDeleted, Property::Delete),
        ];
        for (fault, property) in table {
            let (_folder, store) = store();
            let found = failing(&Faulty { store, fault }).await;
            assert!(found.contains(&property), "{property}: {found:?}");
        }
    }
}
