//! A value in JSON, against a type: [`agentd_fuzz::air_json`].

#![cfg_attr(fuzzing, no_main)]

agentd_fuzz::target!(air_json);
