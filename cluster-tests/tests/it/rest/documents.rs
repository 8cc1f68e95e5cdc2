//! The API describes itself, and what it describes is there.

use super::{Rest, cluster, request};

#[tokio::test]
async fn every_documented_path_is_there() {
    let (fulmar, doors) = cluster(1, &[]).await;
    let rest = Rest::demo(&fulmar, doors[0]).await;
    let document = request(doors[0], "GET", "/openapi.json", &[], b"").await;
    assert_eq!(document.status, 200);
    let paths = document.json["paths"].as_object().unwrap();
    assert!(paths.len() > 20);
    for (path, methods) in paths {
        let place = path.replace("{project_id}", &rest.project).replace(['{', '}'], "");
        for method in methods.as_object().unwrap().keys() {
            let token = [("X-Auth-Token", rest.token.as_str())];
            let answer = request(doors[0], &method.to_uppercase(), &place, &token, b"").await;
            let code = answer.error().0;
            assert!(!matches!(code, "FULMAR.000404" | "FULMAR.000405"), "{method} {place}: {answer:?}");
            assert_ne!(answer.status, 401, "{method} {place}: the token holds");
        }
    }
}
