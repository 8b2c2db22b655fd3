//! ipamd
