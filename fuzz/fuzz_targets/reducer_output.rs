//! What a reducer returns: [`agentd_fuzz::reducer_output`].

#![cfg_attr(fuzzing, no_main)]

agentd_fuzz::target!(reducer_output);
