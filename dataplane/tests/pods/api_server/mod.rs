//! Data planes on a Kubernetes API, with the rights of manifests/dataplane/rbac.yaml and no others.

mod fixture;
mod joining;
mod mapping;
mod rights;
