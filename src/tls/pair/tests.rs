//! Tests of reading pairs: files as openssl writes them, and files that are no pair.

use super::*;

const EC: &[u8] = include_bytes!("ec.pem");
const RSA: &[u8] = include_bytes!("rsa.pem");
const SEC1: &[u8] = include_bytes!("ec-sec1.pem");
const PKCS1: &[u8] = include_bytes!("rsa-pkcs1.pem");
const PKCS8: &[u8] = include_bytes!("rsa-pkcs8.pem");

#[test]
fn keys_in_every_usual_form_belong_to_their_certificates() {
    for (certificate, key) in [(EC, SEC1), (RSA, PKCS1), (RSA, PKCS8)] {
        let pair = Pair::from_pem(certificate, Some(key)).unwrap();
        let both = Pair::from_pem(&[key, certificate].concat(), None).unwrap();
        assert_eq!((pair.digest(), pair.is_rsa()), (both.digest(), certificate == RSA));
        let mut bytes = Vec::new();
        pair.encode(&mut bytes);
        assert_eq!(Pair::decode(&bytes).unwrap().digest(), pair.digest());
        for length in 0..bytes.len() {
            assert!(Pair::decode(&bytes[..length]).is_err(), "{length}");
        }
    }
}

#[test]
fn files_that_do_not_fit_or_are_half_written_are_no_pair() {
    let refused = |certificate: &[u8], key: &[u8]| Pair::from_pem(certificate, Some(key)).map(|_| ()).unwrap_err();
    assert_eq!(refused(EC, PKCS8), Unusable::Mismatch);
    assert_eq!(refused(b"", SEC1), Unusable::NoCertificate);
    assert_eq!(refused(EC, b""), Unusable::NoKey);
    assert_eq!(refused(&[RSA, EC].concat(), SEC1), Unusable::Order(2));
    assert_eq!(refused(EC, include_bytes!("ec-encrypted.pem")), Unusable::Encrypted);
    assert_eq!(refused(RSA, include_bytes!("rsa-encrypted.pem")), Unusable::Encrypted);
    for half in [EC.len() / 2, EC.len() - 20] {
        assert!(Pair::from_pem(&EC[..half], Some(SEC1)).is_err(), "{half}");
    }
}
