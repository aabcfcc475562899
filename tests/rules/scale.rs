//! What a device of many regions costs: nothing that is done again and again looks at all of them.

use crate::support::*;

#[test]
fn no_round_of_reclaim_walks_over_all_regions() {
    let rig = Rig::new();
    rig.fill("before", 60, 1000);
    let walks = || rig.cache().device_store().region_walks();
    let (before, freed) = (walks(), rig.stats().store.counters.regions_freed);
    for round in 0..100 {
        rig.fill(&format!("more-{round}"), 4, if round % 3 == 0 { 2 } else { 1000 });
        rig.remove(format!("more-{round}-1").as_bytes()).unwrap();
        rig.get(format!("more-{}-0", round / 2).as_bytes());
        rig.sleep(millis(200));
    }
    let freed = rig.stats().store.counters.regions_freed - freed;
    assert!(freed > 80, "{freed} regions freed");
    // Those of the stats above, which only add up what is alive.
    assert!(walks() - before <= 2, "{} walks over all regions", walks() - before);
}
