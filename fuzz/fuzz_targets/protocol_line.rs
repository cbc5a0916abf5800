//! A line of the protocol, and the frames of an attach stream: [`agentd_fuzz::protocol_line`].

#![cfg_attr(fuzzing, no_main)]

agentd_fuzz::target!(protocol_line);
