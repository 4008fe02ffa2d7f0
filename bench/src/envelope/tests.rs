use super::Size;
use super::load::{tenant_of, tenants_and_formats};
use super::writes::Writes;

#[test]
fn sizes_are_read() {
    let size = |devices, tenants| Ok(Size { devices, tenants });
    assert_eq!("10000".parse(), size(10_000, 1));
    assert_eq!("5000/20".parse(), size(5000, 20));
    for bad in ["", "0", "5/0", "5/6", "x", "5/x", "1000000", "-1"] {
        assert!(bad.parse::<Size>().is_err_and(|error| error.contains("5000/10")), "{bad}");
    }
}

#[test]
fn each_device_has_a_tenant_that_is_there() {
    let size = Size { devices: 50, tenants: 7 };
    let text = tenants_and_formats(size);
    for number in 0..size.devices {
        assert!(text.contains(&format!("\"name\":\"{}\"", tenant_of(size, number))), "{number}: {text}");
    }
}

/// Lines as kube-apiserver 1.37 writes them.
const METRICS: &str = "
# TYPE apiserver_request_total counter
apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"flutecast.io\",\
    resource=\"devices\",scope=\"resource\",subresource=\"status\",verb=\"APPLY\",version=\"v1alpha1\"} 300
apiserver_request_total{code=\"409\",component=\"apiserver\",dry_run=\"\",group=\"flutecast.io\",\
    resource=\"devices\",scope=\"resource\",subresource=\"status\",verb=\"APPLY\",version=\"v1alpha1\"} 5
apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"flutecast.io\",\
    resource=\"devices\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1alpha1\"} 300
apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",\
    resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"APPLY\",version=\"v1\"} 1.2e+01
apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",\
    resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 9
apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"coordination.k8s.io\",\
    resource=\"leases\",scope=\"resource\",subresource=\"\",verb=\"PUT\",version=\"v1\"} 70
apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"events.k8s.io\",\
    resource=\"events\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 3
";

#[test]
fn only_the_operators_writes_are_counted() {
    let writes = Writes::read(METRICS).unwrap();
    assert_eq!(
        ["device status", "other status", "mapping", "events"].map(|what| writes.of(what)),
        [300, 0, 12, 3],
        "{writes:?}"
    );
    assert_eq!(writes.total(), 315);
    assert_eq!(writes.since(&Writes::default()), writes);
    assert_eq!(writes.since(&writes).total(), 0);
}
