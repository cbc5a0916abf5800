//! A token is believed as it was signed, by the key that signed it, and not otherwise.

use super::*;

fn claims() -> Claims {
    Claims {
        issuer: WorldId([7; 16]),
        holder: AgentNumber(3),
        expires: Some(1_800_000_000),
        not_before: 1_790_000_000,
        issued: 1_790_000_000,
        id: Entropy([9; 16]),
        rights: vec![("/srv/repo/src".into(), Rights::READ.union(Rights::WRITE))],
        number: CapabilityNumber(12),
    }
}

fn signer() -> Signer {
    Signer::from_seed(&[1; 32])
}

#[test]
fn what_was_signed_is_what_is_read() {
    for claims in [claims(), Claims { expires: None, rights: vec![], ..claims() }] {
        assert_eq!(Claims::verified(&claims.sign(&signer()), signer().key()), Ok(claims));
    }
}

#[test]
fn another_key_verifies_nothing() {
    let other = Signer::from_seed(&[2; 32]);
    let token = claims().sign(&signer());
    assert_eq!(Claims::verified(&token, other.key()), Err(NotAToken::Signature(other.key())));
}

#[test]
fn a_token_with_one_bit_changed_or_cut_anywhere_is_refused() {
    let token = claims().sign(&signer());
    for at in 0..token.len() {
        for bit in 0..8 {
            let mut changed = token.clone();
            changed[at] ^= 1 << bit;
            assert!(Claims::verified(&changed, signer().key()).is_err(), "bit {bit} of byte {at}");
        }
        assert!(Claims::verified(&token[..at], signer().key()).is_err(), "cut at {at}");
    }
    assert!(Claims::verified(&[&token[..], &[0]].concat(), signer().key()).is_err());
}

#[test]
fn claims_in_another_form_are_refused_though_signed() {
    let sign = |payload: Vec<u8>| {
        let header = HeaderBuilder::new()
            .algorithm(iana::Algorithm::EdDSA)
            .content_format(iana::CoapContentFormat::Cwt)
            .key_id(key_id(signer().key()).to_vec())
            .build();
        let signed = CoseSign1Builder::new().protected(header).payload(payload);
        let signed = signed.create_signature(EXTERNAL, |message| signer().sign(message).0.to_vec()).build();
        Claims::verified(&signed.to_tagged_vec().unwrap(), signer().key())
    };
    let good = claims().encode();
    assert_eq!(sign(good.clone()), Ok(claims()));
    assert!(sign([&good[..], &[0]].concat()).is_err(), "more than claims");
    // A map of unknown length, and a number longer than it need be.
    let rest = &good[1..];
    assert!(sign([&[0xbf], rest, &[0xff]].concat()).is_err());
    assert!(sign([&[0xb8, 8], rest].concat()).is_err());
    // A right that there is not.
    let odd = Claims { rights: vec![("/x".into(), Rights::ALL)], ..claims() }.encode();
    let at = odd.windows(2).position(|two| two == [b'x', 0x18]).unwrap() + 2;
    let mut odd = odd;
    odd[at] = 0xff;
    assert!(sign(odd).is_err());
}
