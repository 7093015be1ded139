//! `AdmissionReview` of admission.k8s.io/v1: what the API server asks, and what it is answered. Pure.

use crate::{Namespace, Reason, Verdict, decide, note, patch::Operation};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// What is asked about a pod.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub uid: String,
    #[serde(default)]
    pub namespace: String,
    operation: String,
    kind: Kind,
    object: Value,
}

#[derive(Debug, Clone, Deserialize)]
struct Kind {
    #[serde(default)]
    group: String,
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

/// The body cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    #[error("the body is no {KIND} of {VERSION}")]
    Malformed(#[source] serde_json::Error),
    #[error("the body is {kind} of {version}, not {KIND} of {VERSION}")]
    Version { kind: String, version: String },
    #[error("the {KIND} has no request")]
    Empty,
}

/// What the API server is answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
}

impl Request {
    /// Reads what the API server sent.
    pub fn read(body: &[u8]) -> Result<Self, ReviewError> {
        let asked: Asked = serde_json::from_slice(body).map_err(ReviewError::Malformed)?;
        if asked.api_version != VERSION || asked.kind != KIND {
            return Err(ReviewError::Version { kind: asked.kind, version: asked.api_version });
        }
        asked.request.ok_or(ReviewError::Empty)
    }

    /// Decides. What is no new pod is none of ours.
    pub fn decide(&self, config: &crate::Config, namespace: &Namespace) -> Verdict {
        if self.operation != "CREATE" || self.kind.kind != "Pod" || !self.kind.group.is_empty() {
            return Verdict::Skip(Reason::NotAsked);
        }
        decide(config, namespace, &self.object)
    }

    /// The pod's name, or what it will begin with.
    pub fn name(&self) -> &str {
        let of = |field| self.object.pointer(field).and_then(Value::as_str);
        of("/metadata/name").or_else(|| of("/metadata/generateName")).unwrap_or("without a name")
    }

    /// The verdict as the API server reads it.
    pub fn answer(&self, verdict: &Verdict) -> Answer {
        let mut response = Response {
            uid: self.uid.clone(),
            allowed: true,
            status: None,
            patch: None,
            patch_type: None,
            warnings: Vec::new(),
        };
        let mut patch = |operations: &[Operation]| {
            if !operations.is_empty() {
                let json = serde_json::to_vec(operations).expect("a patch is plain JSON");
                response.patch = Some(BASE64_STANDARD.encode(json));
                response.patch_type = Some("JSONPatch");
            }
        };
        match verdict {
            Verdict::Patch { operations, warnings } => {
                patch(operations);
                response.warnings.clone_from(warnings);
            }
            Verdict::Skip(reason) => patch(&note(&self.object, reason)),
            Verdict::Refuse(problem) => {
                response.allowed = false;
                let message = format!("weft: {problem}");
                response.status = Some(Status { code: 422, reason: "Invalid", message });
            }
        }
        Answer { api_version: VERSION, kind: KIND, response }
    }
}
