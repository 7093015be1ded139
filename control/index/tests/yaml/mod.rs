//! Objects as people write them, for the tests.

use control_index::{Index, Kind, Object, Touched};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
}

pub fn objects(yaml: &str) -> Vec<Object> {
    let documents = yaml.split("\n---\n").filter(|text| !text.trim().is_empty());
    documents
        .map(|text| {
            let head: Head = serde_saphyr::from_str(text).expect("apiVersion and kind");
            let kind = Kind::named(&head.api_version, &head.kind).expect("a kind that the index takes");
            serde_saphyr::with_deserializer_from_str(text, |from| kind.read(from)).expect(text)
        })
        .collect()
}

pub fn apply(index: &mut Index, yaml: &str) -> Touched {
    let mut touched = Touched::default();
    objects(yaml).iter().for_each(|object| touched.merge(index.apply(object)));
    touched
}

pub fn index(yaml: &str) -> Index {
    let mut index = Index::default();
    apply(&mut index, yaml);
    index
}
