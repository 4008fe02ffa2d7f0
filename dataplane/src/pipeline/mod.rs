//! From a message to a frame: event time, format, encode once.
