//! A profile, and the options of a command line: [`agentd_fuzz::profile`].

#![cfg_attr(fuzzing, no_main)]

agentd_fuzz::target!(profile);
