//! Definitions and patches, in JSON and CBOR: [`agentd_fuzz::air_definition`].

#![cfg_attr(fuzzing, no_main)]

agentd_fuzz::target!(air_definition);
