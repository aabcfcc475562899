//! `inspect --key` and `inspect --region`: why a key is a hit or a miss, and what fills a region.

use rawcached::inspect::{Fate, Inspection};

use super::filled::*;

#[tokio::test]
async fn a_key_is_explained() {
    let filled = filled(true).await;
    let image = Image::of(&filled);
    let explain = |key: &str| image.json(&["inspect", "--json", "--key", key]);
    for (key, answer, state, why) in [
        ("key-100", "hit", "fresh", "is fresh for 3"),
        ("key-50", "hit", "fresh", "is fresh for 7"),
        ("odd\\\\ \\x00\\xff", "hit", "fresh", "is fresh for"),
        ("key-1", "hit", "fresh", "is fresh for 7"),
        ("key-25", "miss", "removed", "the newest version was removed by sequence"),
    ] {
        let report = explain(key);
        assert_eq!(
            (&report["answer"], &report["versions"][0]["state"]),
            (&answer.into(), &state.into()),
            "{key}: {report:#}"
        );
        assert!(report["why"].as_str().unwrap().starts_with(why), "{key}: {report:#}");
    }
    // Overwritten: the newer one first.
    let report = explain("key-2");
    let versions = report["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 2, "{report:#}");
    assert_eq!(
        (&versions[0]["state"], &versions[1]["state"]),
        (&"fresh".into(), &"superseded".into())
    );
    assert_eq!(versions[0]["checksums"], "good");
    let by = format!("was replaced by sequence {}", versions[0]["sequence"]);
    assert!(versions[1]["why"].as_str().unwrap().starts_with(&by), "{report:#}");
    assert_eq!(explain("never")["why"], "no version of it is on the device");
    let large = explain("large");
    assert_eq!(
        (&large["versions"][0]["slices"], &large["versions"][0]["kind"]),
        (&16.into(), &"head".into())
    );
    let listed = list(&filled).await;
    let entry = listed.iter().find(|entry| entry.key == b"key-100").unwrap();
    image.corrupt(entry.offset + 60);
    let output = image.run(&["inspect", "--key", "key-100"]);
    assert_eq!(output.status.code(), Some(1));
    let lines = text(&output.stdout);
    assert!(lines.starts_with("key-100: miss: the newest version is damaged: checksum"), "{lines}");
    assert!(lines.contains("\n  stored at ") && lines.contains("Z\n"), "{lines}");
}

#[tokio::test]
async fn a_key_that_expired_or_was_purged_is_explained() {
    let filled = filled(false).await;
    let inspection = inspection(&filled).await;
    let expired = inspection.explain_key(&filled.clock, b"short").await;
    assert_eq!(expired.versions[0].fate, Fate::Expired);
    assert!(!expired.is_hit());
    let cache = open(&filled.device, &filled.clock).await;
    cache.purge_all(rawcached::Purge::Hard).await.unwrap();
    cache.shutdown().await.unwrap();
    let inspection = Inspection::open(filled.device.open()).await.unwrap();
    let purged = inspection.explain_key(&filled.clock, b"key-100").await;
    assert!(matches!(purged.versions[0].fate, Fate::Purged { .. }), "{purged:?}");
}

#[tokio::test]
async fn a_region_is_explained() {
    let filled = filled(true).await;
    let inspection = inspection(&filled).await;
    let mut kills = 0;
    for region in 0..layout().region_count {
        let explained = inspection.explain_region(&filled.clock, region).await.unwrap();
        let entries = explained.objects.count + explained.heads.count + explained.slices.count;
        assert_eq!(entries, explained.survey.entries);
        assert_eq!(explained.live.count + explained.dead.count + explained.expired.count, entries);
        assert_eq!(explained.map.len() as u64 * explained.page, layout().region_size);
        kills += explained.tombstone_slots.count;
    }
    assert_eq!(kills, 40, "two for each removed key");
    let image = Image::of(&filled);
    let report = image.json(&["inspect", "--region", "0", "--json"]);
    assert_eq!(report["state"], "sealed");
    let map: String =
        report["map"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    assert!(map.starts_with('H') && map.ends_with('F') && map.contains("##"), "{map}");
    let at = layout().region_offset(0);
    image.corrupt(at + 5000);
    let output = image.run(&["inspect", "--region", "0"]);
    assert_eq!(output.status.code(), Some(0), "header and footer are sound: {output:?}");
    assert!(text(&output.stdout).contains("H!"), "{output:?}");
    image.corrupt(at + 20);
    assert_eq!(image.run(&["inspect", "--region", "0"]).status.code(), Some(1));
    let output = image.run(&["inspect", "--region", "99"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("the device has regions 0 to"), "{output:?}");
}
