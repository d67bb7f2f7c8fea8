//! Profiles as OTLP requests: an experimental signal, so its messages may change with the protocol's version.

use opentelemetry_proto::tonic::{
    collector::profiles::v1development::ExportProfilesServiceRequest,
    profiles::v1development::{Profile, ProfilesDictionary, ResourceProfiles, ScopeProfiles},
};

use super::encode::{encode_resource, scope};
use crate::model::Resource;

/// Profiles of a process as one request.
pub(super) fn request(
    resource: &Resource,
    profiles: Vec<Profile>,
    dictionary: ProfilesDictionary,
) -> ExportProfilesServiceRequest {
    let scope_profiles = vec![ScopeProfiles {
        scope: Some(scope()),
        profiles,
        ..ScopeProfiles::default()
    }];
    let resource_profiles = vec![ResourceProfiles {
        resource: Some(encode_resource(resource)),
        scope_profiles,
        ..ResourceProfiles::default()
    }];
    ExportProfilesServiceRequest {
        resource_profiles,
        dictionary: Some(dictionary),
    }
}
