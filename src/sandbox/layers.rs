//! The layers of a sandbox with a view of its own, for plan and report.

use crate::confinement::Property;
use crate::sandbox::enclosure::Enclosure;
use crate::sandbox::plan::Layer;
use crate::sandbox::prepared::MECHANISMS;
use crate::sandbox::view::Network;

impl Enclosure {
    /// All that it confines by, in order.
    pub(crate) fn mechanisms(&self) -> Vec<&'static str> {
        let own = self.layers().into_iter().map(|layer| layer.mechanism);
        own.chain(MECHANISMS).collect()
    }

    /// Those before the ones that every level has.
    pub(crate) fn layers(&self) -> Vec<Layer> {
        use Property::{Apart, Inside, Processes, Unprivileged, View, Writes};
        let user = "the caller's own user, or for root one that owns nothing".to_owned();
        let mut view: Vec<String> = self.pieces.iter().map(ToString::to_string).collect();
        view.push("nothing else; the root itself is read-only".to_owned());
        let kept: Vec<String> = self.kept().map(|key| format!("keep {key}")).collect();
        let own = |what: &str| vec![what.to_owned()];
        let mut all = vec![
            layer("user-namespace", &[Unprivileged], vec![user]),
            layer("mount-namespace", &[Inside, View, Writes], view),
            layer("environment", &[View], kept),
            layer("pid-namespace", &[Apart, Processes], own("main is process 2, below an init")),
            layer("ipc-namespace", &[Processes], own("System V IPC and message queues")),
            layer("uts-namespace", &[Processes], own("the host's name, as a copy")),
            layer("cgroup-namespace", &[Inside], own("its own cgroup is the root")),
        ];
        let overlays = self.overlays().map(|dir| format!("what is written to {dir:?}: in memory"));
        let overlays: Vec<_> = overlays.collect();
        if !overlays.is_empty() {
            all.push(layer("overlayfs", &[Writes], overlays));
        }
        if self.network != Network::Host {
            let network = vec![self.network.to_string()];
            all.push(layer("network-namespace", &[Property::Network], network));
        }
        all
    }
}

fn layer(mechanism: &'static str, properties: &[Property], details: Vec<String>) -> Layer {
    Layer { mechanism, properties: properties.to_vec(), details }
}
