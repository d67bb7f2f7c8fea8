//! What the agent's kernel side keeps.

use std::fs;

use aya::maps::{Array, HashMap, Map, MapData, MapInfo};

use super::Agent;

/// A map of the agent's kernel side.
pub fn map<K: aya::Pod, V: aya::Pod>(agent: &Agent, name: &str) -> HashMap<MapData, K, V> {
    Map::HashMap(data(agent, name)).try_into().unwrap()
}

/// The same of an array.
pub fn array<V: aya::Pod>(agent: &Agent, name: &str) -> Array<MapData, V> {
    Map::Array(data(agent, name)).try_into().unwrap()
}

/// The keys that a table has, by the name of their map.
pub fn keys<K: aya::Pod + Default + PartialEq>(agent: &Agent, name: &str) -> Vec<K> {
    let keys = array(agent, name);
    let keys = keys.iter().map(Result::unwrap);
    keys.filter(|key| *key != K::default()).collect()
}

/// A map of any kind.
pub fn data(agent: &Agent, name: &str) -> MapData {
    let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", agent.pid())).unwrap();
    let infos = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let ids = infos.filter_map(|info| {
        info.lines()
            .find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok())
    });
    let named = |id: &u32| MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some(name));
    let id = ids.into_iter().find(named).unwrap_or_else(|| panic!("no map {name}"));
    MapData::from_id(id).unwrap()
}
