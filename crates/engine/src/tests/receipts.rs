//! A receipt is taken as it was signed or not at all.

use coset::{CoseSign1, HeaderBuilder, TaggedCborSerializable as _};

use super::*;

fn intent() -> Content {
    Content([3; 32])
}

fn world_id() -> WorldId {
    WorldId([1; 16])
}

fn receipt() -> Receipt {
    let mut receipt = Receipt::new(world_id(), intent(), "test/1", 2, Status::Done);
    receipt.result = Some(bytes(&(7_u64,)).into());
    (receipt.began_ns, receipt.ended_ns) = (5, 9);
    receipt
}

fn verified(bytes: &[u8]) -> Result<Receipt, NotAReceipt> {
    Receipt::verified(bytes, world_id(), signer().key())
}

#[test]
fn what_was_signed_reads_back() {
    let signed = receipt().sign(&signer());
    assert_eq!(verified(&signed), Ok(receipt()));
    assert_eq!(Receipt::claimed(&signed), Ok(receipt()));
    for status in [Status::Done, Status::Failed, Status::TimedOut, Status::Interrupted] {
        let receipt = but(receipt(), |receipt| {
            (receipt.status, receipt.result, receipt.reason) = (status, None, Some("why".into()));
        });
        assert_eq!(verified(&receipt.sign(&signer())), Ok(receipt));
    }
}

#[test]
fn a_stranger_and_another_world_are_told_apart() {
    let stranger = Signer::from_seed(&[8; 32]);
    let key = signer().key();
    assert_eq!(verified(&receipt().sign(&stranger)), Err(NotAReceipt::Signature(key)));
    // A stranger that claims to be somebody.
    let mut forged = CoseSign1::from_tagged_slice(&receipt().sign(&signer())).unwrap();
    let other = CoseSign1::from_tagged_slice(&receipt().sign(&stranger)).unwrap();
    forged.signature = other.signature;
    assert_eq!(verified(&forged.to_tagged_vec().unwrap()), Err(NotAReceipt::Signature(key)));
    let elsewhere = but(receipt(), |receipt| receipt.world = WorldId([2; 16]));
    assert_eq!(verified(&elsewhere.sign(&signer())), Err(NotAReceipt::World(WorldId([2; 16]))));
}

#[test]
fn no_byte_can_be_another_one() {
    let signed = receipt().sign(&signer());
    for at in 0..signed.len() {
        for bit in 0..8 {
            let mut changed = signed.clone();
            changed[at] ^= 1 << bit;
            assert!(verified(&changed).is_err(), "byte {at}, bit {bit}");
        }
        assert!(verified(&signed[..at]).is_err(), "{at} bytes");
    }
    assert!(verified(&[&signed[..], &[0]].concat()).is_err());
}

#[test]
fn there_is_one_encoding() {
    let signed = receipt().sign(&signer());
    // Tag 18, then an array of 4: the same array in a longer form, and of indefinite length.
    assert_eq!(signed[..2], [0xd2, 0x84]);
    let longer = [&[0xd2, 0x98, 0x04], &signed[2..]].concat();
    assert_eq!(verified(&longer), Err(NotAReceipt::NotCanonical));
    let indefinite = [&[0xd2, 0x9f], &signed[2..], &[0xff]].concat();
    assert_eq!(verified(&indefinite), Err(NotAReceipt::NotCanonical));
    assert!(matches!(verified(&signed[1..]), Err(NotAReceipt::Shape(_))), "without its tag");
    // The payload in another form, honestly signed.
    let payload = bytes(&receipt());
    let sign = |payload: Vec<u8>| {
        let mut signed = CoseSign1::from_tagged_slice(&signed).unwrap();
        signed.payload = Some(payload);
        let message = signed.tbs_data(b"agentd receipt v1");
        signed.signature = signer().sign(&message).0.to_vec();
        signed.to_tagged_vec().unwrap()
    };
    assert_eq!(verified(&sign(payload.clone())), Ok(receipt()));
    let longer = [&[0x98, payload[0] & 0x1f], &payload[1..]].concat();
    assert_eq!(verified(&sign(longer)), Err(NotAReceipt::NotCanonical));
    let mut later = payload.clone();
    assert_eq!(later[1], 1, "the version");
    later[1] = 2;
    assert_eq!(verified(&sign(later)), Err(NotAReceipt::Shape("version 2".into())));
    assert!(matches!(verified(&sign(b"rubbish".to_vec())), Err(NotAReceipt::Shape(_))));
}

#[test]
fn headers_say_what_they_say_and_nothing_is_added() {
    let signed = CoseSign1::from_tagged_slice(&receipt().sign(&signer())).unwrap();
    let mut added = signed.clone();
    added.unprotected = HeaderBuilder::new().key_id(vec![1]).build();
    let refusal = Err(NotAReceipt::Header("unprotected part, which should be empty"));
    assert_eq!(verified(&added.to_tagged_vec().unwrap()), refusal);
    let with = |change: fn(&mut coset::Header)| {
        let mut header = signed.protected.header.clone();
        change(&mut header);
        let payload = signed.payload.clone().unwrap();
        let built = coset::CoseSign1Builder::new().protected(header).payload(payload);
        let built = built.create_signature(b"agentd receipt v1", |message| signer().sign(message).0.to_vec()).build();
        verified(&built.to_tagged_vec().unwrap())
    };
    assert_eq!(with(|_| ()), Ok(receipt()));
    let refusal = |what| Err(NotAReceipt::Header(what));
    assert_eq!(with(|header| header.alg = None), refusal("algorithm"));
    assert_eq!(with(|header| header.content_type = None), refusal("content type"));
    assert_eq!(with(|header| header.key_id.push(0)), Err(NotAReceipt::Signature(signer().key())));
    // Said of another purpose.
    let elsewhere = coset::CoseSign1Builder::new()
        .protected(signed.protected.header.clone())
        .payload(signed.payload.clone().unwrap())
        .create_signature(b"something else", |message| signer().sign(message).0.to_vec())
        .build();
    assert_eq!(verified(&elsewhere.to_tagged_vec().unwrap()), Err(NotAReceipt::Signature(signer().key())));
}

#[test]
fn a_receipt_fits_the_attempt_or_changes_nothing() {
    let mut world = World::new();
    let intent = world.wanted(&timer(9));
    world.attempt(intent).unwrap();
    let of = |world: &World, attempt| world.receipt(intent, attempt);
    let first = of(&world, 1);
    world.attempt(intent).unwrap();
    let misfit = |text: &str| Err(Refusal::Misfit(text.to_owned()));
    // Late: the effect has been begun again. And one of an attempt that was never made.
    assert_eq!(world.settle(&first), misfit("it is of attempt 1, and the effect is at attempt 2"));
    assert_eq!(world.settle(&of(&world, 3)), misfit("it is of attempt 3, and the effect is at attempt 2"));
    let second = of(&world, 2);
    world.settle(&second).unwrap();
    // Twice.
    assert_eq!(world.settle(&second), Err(Refusal::NotOpen(intent)));
}

#[test]
fn a_result_is_of_the_type_of_its_kind() {
    let mut world = World::new();
    let intent = world.wanted(&note("a"));
    world.attempt(intent).unwrap();
    let with = |result: Option<Vec<u8>>, status| {
        let receipt = Receipt::new(world_id(), intent, "test/1", 1, status);
        but(receipt, |receipt| receipt.result = result.map(ByteVec::from)).sign(&signer())
    };
    let refused = |bytes: Vec<u8>| match world.state.accept(Input::Receipt { bytes }) {
        Err(Refusal::Misfit(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(with(None, Status::Done)), "it was done, and there is no result");
    assert!(refused(with(Some(bytes(&("text",))), Status::Done)).starts_with("result: record: expected nat"));
    // The right value in another encoding, and with something behind it.
    assert!(refused(with(Some(vec![0x81, 0x18, 0x07]), Status::Done)).starts_with("result: "));
    assert!(refused(with(Some(vec![0x81, 0x07, 0x00]), Status::Done)).starts_with("result: "));
    assert!(refused(with(Some(b"x".to_vec()), Status::Failed)).starts_with("result: "));
    let fine = Input::Receipt { bytes: with(None, Status::Failed) };
    assert!(world.state.accept(fine).is_ok());
}

#[test]
fn a_receipt_is_signed_with_the_key_in_force() {
    let mut world = World::new();
    let intent = world.wanted(&note("a"));
    world.attempt(intent).unwrap();
    let next = Signer::from_seed(&[8; 32]);
    world.state.fold(Seq(world.state.height().0 + 1), Stamp::default(), &Entry::KeyRotated { key: next.key() });
    let receipt = world.receipt(intent, 1);
    let old = Input::Receipt { bytes: receipt.sign(&signer()) };
    assert_eq!(world.state.accept(old), Err(Refusal::Receipt(NotAReceipt::Signature(next.key()))));
    assert!(world.state.accept(Input::Receipt { bytes: receipt.sign(&next) }).is_ok());
}
