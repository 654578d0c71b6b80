//! One-time codes.

use super::*;

on_each_database!(a_code_is_good_once_for_a_while_and_for_a_few_guesses,);

async fn a_code_is_good_once_for_a_while_and_for_a_few_guesses(home: &Home) {
    let ledger = &home.ledger;
    let otp = |digest: u8| Otp {
        tel: "12345",
        digest: [digest; 32],
        ttl_ms: 1_000,
        attempts: 2,
        per_hour: 3,
    };
    let user = NewUser {
        tel: "12345",
        name: "Ada",
        password_hash: "$",
        gender: None,
        age: Some(36),
    };
    let wrong =
        |result: Result<()>| matches!(result, Err(BackendError::Refused(Refusal::WrongOtp)));
    assert!(wrong(ledger.check_otp("12345", &[1; 32], NOW).await));
    ledger.store_otp(&otp(1), NOW).await.unwrap();
    assert!(wrong(ledger.check_otp("54321", &[1; 32], NOW).await));
    assert!(wrong(
        ledger
            .check_otp("12345", &[1; 32], NOW.plus_ms(1_000))
            .await
    ));
    assert!(wrong(ledger.check_otp("12345", &[9; 32], NOW).await));
    ledger.check_otp("12345", &[1; 32], NOW).await.unwrap();
    assert!(wrong(ledger.check_otp("12345", &[9; 32], NOW).await));
    assert!(
        wrong(ledger.check_otp("12345", &[1; 32], NOW).await),
        "two guesses were wrong"
    );
    ledger.store_otp(&otp(2), NOW).await.unwrap();
    let ada = ledger.register(&user, &[2; 32], NOW).await.unwrap();
    assert_eq!(ledger.user(ada.id).await.unwrap(), Some(ada));
    assert!(
        wrong(ledger.check_otp("12345", &[2; 32], NOW).await),
        "it was used"
    );
    ledger.store_otp(&otp(3), NOW).await.unwrap();
    let taken = ledger.register(&user, &[3; 32], NOW).await;
    assert!(matches!(
        taken,
        Err(BackendError::Refused(Refusal::NumberTaken))
    ));
    let often = ledger.store_otp(&otp(4), NOW).await;
    assert!(matches!(
        often,
        Err(BackendError::Refused(Refusal::TooManyRequests {
            retry_after_s: 3_600
        }))
    ));
    assert_eq!(ledger.purge_otps(NOW).await.unwrap(), 0);
    assert_eq!(ledger.purge_otps(NOW.plus_ms(3_600_000)).await.unwrap(), 3);
}
