#!/usr/bin/env bash
# Makes today's definitions and manifests those of the last release: see README.md beside this file.
set -euo pipefail
cd "$(dirname "$0")/../.."
released=crds/released/v1alpha1
cp crds/yaml/*.yaml "$released/"
for folder in demo samples; do
    find "manifests/$folder" -name '*.yaml' | LC_ALL=C sort | while read -r file; do
        printf -- '---\n# From %s.\n' "$file"
        cat "$file"
    done >"$released/objects/$folder.yaml"
done
