//! A record of a journal: [`agentd_fuzz::journal_record`].

#![cfg_attr(fuzzing, no_main)]

agentd_fuzz::target!(journal_record);
