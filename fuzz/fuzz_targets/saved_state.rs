//! A saved state: [`agentd_fuzz::saved_state`].

#![cfg_attr(fuzzing, no_main)]

agentd_fuzz::target!(saved_state);
