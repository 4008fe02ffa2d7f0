//! Splits a tenant's devices into shard documents, and puts them together again.
