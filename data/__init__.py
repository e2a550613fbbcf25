"""What crosses the link: units, frames, codecs, messages, the link itself."""
