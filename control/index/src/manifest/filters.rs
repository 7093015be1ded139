//! The filters of Gateway API's HTTPRoutes and GRPCRoutes. A type that is not known here keeps its name.

use super::{listed, routes::BackendRef};
use serde::{Deserialize, Deserializer, de};

/// One filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    RequestHeaderModifier(HeaderFilter),
    ResponseHeaderModifier(HeaderFilter),
    RequestMirror(Mirror),
    RequestRedirect(Redirect),
    UrlRewrite(Rewrite),
    Cors(Cors),
    ExtensionRef(LocalObjectReference),
    /// Of a type that is not known here, which this is (`ExternalAuth`).
    Unknown(String),
}

/// Fields that are set, added and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HeaderFilter {
    #[serde(deserialize_with = "listed")]
    pub set: Vec<Header>,
    #[serde(deserialize_with = "listed")]
    pub add: Vec<Header>,
    #[serde(deserialize_with = "listed")]
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Header {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mirror {
    pub backend_ref: BackendRef,
    /// Neither it nor a fraction: every request.
    pub percent: Option<i32>,
    pub fraction: Option<Fraction>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Fraction {
    pub numerator: i32,
    /// Missing: 100.
    pub denominator: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Redirect {
    pub scheme: Option<String>,
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
    pub port: Option<i32>,
    /// Missing: 302.
    pub status_code: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rewrite {
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PathModifier {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    #[serde(rename = "type")]
    pub type_: String,
    pub replace_full_path: Option<String>,
    pub replace_prefix_match: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cors {
    #[serde(deserialize_with = "listed")]
    pub allow_origins: Vec<String>,
    pub allow_credentials: Option<bool>,
    #[serde(deserialize_with = "listed")]
    pub allow_methods: Vec<String>,
    #[serde(deserialize_with = "listed")]
    pub allow_headers: Vec<String>,
    #[serde(deserialize_with = "listed")]
    pub expose_headers: Vec<String>,
    /// In seconds. Missing: 5.
    pub max_age: Option<i32>,
}

/// An object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LocalObjectReference {
    pub group: String,
    pub kind: String,
    pub name: String,
}

impl Filter {
    /// Its type, as an object writes it.
    pub fn type_(&self) -> &str {
        match self {
            Self::RequestHeaderModifier(_) => "RequestHeaderModifier",
            Self::ResponseHeaderModifier(_) => "ResponseHeaderModifier",
            Self::RequestMirror(_) => "RequestMirror",
            Self::RequestRedirect(_) => "RequestRedirect",
            Self::UrlRewrite(_) => "URLRewrite",
            Self::Cors(_) => "CORS",
            Self::ExtensionRef(_) => "ExtensionRef",
            Self::Unknown(type_) => type_,
        }
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Union {
            #[serde(rename = "type")]
            type_: String,
            request_header_modifier: Option<HeaderFilter>,
            response_header_modifier: Option<HeaderFilter>,
            request_mirror: Option<Mirror>,
            request_redirect: Option<Redirect>,
            url_rewrite: Option<Rewrite>,
            cors: Option<Cors>,
            extension_ref: Option<LocalObjectReference>,
        }
        let union = Union::deserialize(from)?;
        let known = match union.type_.as_str() {
            "RequestHeaderModifier" => union.request_header_modifier.map(Self::RequestHeaderModifier),
            "ResponseHeaderModifier" => union.response_header_modifier.map(Self::ResponseHeaderModifier),
            "RequestMirror" => union.request_mirror.map(Self::RequestMirror),
            "RequestRedirect" => union.request_redirect.map(Self::RequestRedirect),
            "URLRewrite" => union.url_rewrite.map(Self::UrlRewrite),
            "CORS" => union.cors.map(Self::Cors),
            "ExtensionRef" => union.extension_ref.map(Self::ExtensionRef),
            _ => return Ok(Self::Unknown(union.type_)),
        };
        known.ok_or_else(|| {
            de::Error::custom(format!(
                "a filter of type {} says nothing in the field of that name",
                union.type_
            ))
        })
    }
}
