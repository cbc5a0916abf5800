//! A value in CBOR, against a type: [`agentd_fuzz::air_value`].

#![cfg_attr(fuzzing, no_main)]

agentd_fuzz::target!(air_value);
