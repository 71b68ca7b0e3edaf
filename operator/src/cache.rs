//! Cache of one kind of object: a watch that fills a store and tells listeners what changed.
//! Invariant: a listener hears of a change after the store holds it; an object that cannot be read is left out of the
//! store, logged and counted, and stops nothing.
//! Leaves what a change means to the controllers.

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt};
use kube::{
    Api, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// What the cache asks of a kind.
pub trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

/// Objects of kind `K` as the API server last told, without their managed fields.
pub struct Cache<K: Kind> {
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    store: Store<K>,
    writer: Mutex<Option<Writer<K>>>,
    listeners: Mutex<Vec<mpsc::UnboundedSender<Arc<K>>>>,
}

impl<K: Kind> Cache<K> {
    /// A cache that is empty until [`Cache::run`] fills it.
    pub fn new(api: Api<DeserializeGuard<K>>, config: watcher::Config) -> Self {
        let writer = Writer::new(());
        let store = writer.as_reader();
        Self { api, config, store, writer: Mutex::new(Some(writer)), listeners: Mutex::default() }
    }

    /// Reads what the cache holds.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// The object of that name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// All objects of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.store.state_filter(|object| object.namespace().as_deref() == Some(namespace))
    }

    /// Waits until the cache has been filled.
    pub async fn filled(&self) {
        // The writer ends with the watch, and then nobody waits for it any more.
        let _ = self.store.wait_until_ready().await;
    }

    /// Every object that there is, and then every one that is added, changed or removed.
    pub fn changes(&self) -> impl Stream<Item = Arc<K>> + Send + use<K> {
        // Pointers to objects that the store holds anyway, and a controller takes them off at once: no bound is needed,
        // and one would let a listener that has not begun stop the watch that it waits for.
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut listeners = self.listeners.lock();
        // The store changes before listeners are told: what is not in it yet is told after this.
        for object in self.store.state() {
            // The receiver is right here.
            let _ = sender.send(object);
        }
        listeners.push(sender);
        UnboundedReceiverStream::new(receiver)
    }

    /// Watches until the future is dropped. Once: a second call ends at once.
    pub async fn run(self: Arc<Self>) {
        let Some(mut writer) = self.writer.lock().take() else { return };
        let mut events = watcher(self.api.clone(), self.config.clone()).default_backoff().boxed();
        let mut initial = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.take(event, &mut writer, &mut initial),
                Err(error) => {
                    let kind = K::kind(&());
                    metrics::counter!("gantry_operator_watch_errors_total", "kind" => kind.to_string())
                        .increment(1);
                    tracing::warn!(%kind, error = &error as &dyn std::error::Error, "watch is tried again");
                }
            }
        }
    }

    /// Brings the store up to date, then tells the listeners.
    fn take(
        &self,
        event: watcher::Event<DeserializeGuard<K>>,
        writer: &mut Writer<K>,
        initial: &mut Vec<Arc<K>>,
    ) {
        use watcher::Event;
        let changed = match event {
            Event::Init => {
                initial.clear();
                writer.apply_watcher_event(&Event::Init);
                Vec::new()
            }
            Event::InitApply(guard) => {
                if let Ok(object) = read(guard) {
                    writer.apply_watcher_event(&Event::InitApply(object.clone()));
                    initial.push(Arc::new(object));
                }
                Vec::new()
            }
            Event::InitDone => {
                let before = self.store.state();
                writer.apply_watcher_event(&Event::InitDone);
                let gone =
                    before.into_iter().filter(|object| self.store.get(&key(&**object)).is_none());
                gone.chain(initial.drain(..)).collect()
            }
            Event::Apply(guard) => match read(guard) {
                Ok(object) => {
                    writer.apply_watcher_event(&Event::Apply(object.clone()));
                    vec![Arc::new(object)]
                }
                Err(unreadable) => self.remove(&unreadable, writer),
            },
            Event::Delete(guard) => match guard.0 {
                Ok(object) => {
                    writer.apply_watcher_event(&Event::Delete(object.clone()));
                    vec![Arc::new(object)]
                }
                Err(invalid) => self.remove(&key_of::<K>(&invalid.metadata), writer),
            },
        };
        for object in changed {
            self.tell(&object);
        }
    }

    fn remove(&self, key: &ObjectRef<K>, writer: &mut Writer<K>) -> Vec<Arc<K>> {
        let Some(object) = self.store.get(key) else { return Vec::new() };
        writer.apply_watcher_event(&watcher::Event::Delete(K::clone(&object)));
        vec![object]
    }

    fn tell(&self, object: &Arc<K>) {
        // A controller that has ended listens no more.
        self.listeners.lock().retain(|listener| listener.send(object.clone()).is_ok());
    }
}

/// The object without what nobody here reads, or else the key of one that cannot be read.
fn read<K: Kind>(guard: DeserializeGuard<K>) -> Result<K, ObjectRef<K>> {
    match guard.0 {
        Ok(mut object) => {
            object.meta_mut().managed_fields = None;
            Ok(object)
        }
        Err(invalid) => {
            let (kind, key) = (K::kind(&()), key_of::<K>(&invalid.metadata));
            metrics::counter!("gantry_operator_unreadable_objects_total", "kind" => kind.to_string())
                .increment(1);
            tracing::error!(object = %key, error = %invalid.error, "cannot be read and is left alone");
            Err(key)
        }
    }
}

fn key<K: Kind>(object: &K) -> ObjectRef<K> {
    key_of(object.meta())
}

fn key_of<K: Kind>(meta: &kube::api::ObjectMeta) -> ObjectRef<K> {
    let key = ObjectRef::new(meta.name.as_deref().unwrap_or_default());
    match &meta.namespace {
        Some(namespace) => key.within(namespace),
        None => key,
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use gantry_resources::Topic;
    use serde_json::json;

    use super::*;

    fn topic(name: &str) -> DeserializeGuard<Topic> {
        let topic = json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Topic",
            "metadata": { "name": name, "namespace": "ns" },
            "spec": { "clusterRef": { "name": "shop" } },
        });
        serde_json::from_value(topic).unwrap()
    }

    fn unreadable(name: &str) -> DeserializeGuard<Topic> {
        let topic = json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Topic",
            "metadata": { "name": name, "namespace": "ns" },
            "spec": { "queues": "many" },
        });
        let guard: DeserializeGuard<Topic> = serde_json::from_value(topic).unwrap();
        assert!(guard.0.is_err());
        guard
    }

    struct World {
        cache: Cache<Topic>,
        writer: Writer<Topic>,
        initial: Vec<Arc<Topic>>,
    }

    impl World {
        fn new() -> Self {
            let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
            let client = kube::Client::try_from(config).unwrap();
            let cache = Cache::new(Api::all(client), watcher::Config::default());
            let writer = cache.writer.lock().take().unwrap();
            Self { cache, writer, initial: Vec::new() }
        }

        fn take(&mut self, event: watcher::Event<DeserializeGuard<Topic>>) {
            self.cache.take(event, &mut self.writer, &mut self.initial);
        }

        fn list(&mut self, topics: Vec<DeserializeGuard<Topic>>) {
            self.take(watcher::Event::Init);
            for topic in topics {
                self.take(watcher::Event::InitApply(topic));
            }
            self.take(watcher::Event::InitDone);
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> =
                self.cache.in_namespace("ns").iter().map(|topic| topic.name_any()).collect();
            names.sort_unstable();
            names
        }
    }

    /// Names of the changes that are waiting.
    fn heard(changes: &mut (impl Stream<Item = Arc<Topic>> + Unpin)) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(Some(topic)) = changes.next().now_or_never() {
            names.push(topic.name_any());
        }
        names
    }

    #[tokio::test]
    async fn object_that_cannot_be_read_is_left_out_and_stops_nothing() {
        let mut world = World::new();
        let mut changes = Box::pin(world.cache.changes());
        world.list(vec![topic("a"), unreadable("b"), topic("c")]);
        assert_eq!(world.names(), ["a", "c"]);
        assert_eq!(heard(&mut changes), ["a", "c"]);
        world.take(watcher::Event::Apply(unreadable("a")));
        assert_eq!(world.names(), ["c"], "what cannot be read any more is left alone");
        assert_eq!(heard(&mut changes), ["a"]);
        world.take(watcher::Event::Apply(topic("a")));
        assert_eq!(world.names(), ["a", "c"]);
    }

    #[tokio::test]
    async fn listener_hears_of_removals_also_of_those_that_a_broken_watch_missed() {
        let mut world = World::new();
        world.list(vec![topic("a"), topic("b"), topic("c")]);
        let mut changes = Box::pin(world.cache.changes());
        let mut first = heard(&mut changes);
        first.sort_unstable();
        assert_eq!(first, ["a", "b", "c"], "a late listener hears of all that there is");
        world.take(watcher::Event::Delete(topic("a")));
        assert_eq!(heard(&mut changes), ["a"]);
        world.list(vec![topic("c")]);
        assert_eq!(heard(&mut changes), ["b", "c"]);
        assert_eq!(world.names(), ["c"]);
    }
}
