//! A signed receipt: [`agentd_fuzz::receipt`].

#![cfg_attr(fuzzing, no_main)]

agentd_fuzz::target!(receipt);
