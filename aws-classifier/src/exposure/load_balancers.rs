//! The accounts from which AWS writes the access logs of load balancers.
//!
//! In regions that opened before August 2022 a bucket for these logs lets an account of AWS write, not a service. The list
//! is the one of "Enable access logs for your Application Load Balancer" in the user guide of Elastic Load Balancing, with
//! that of the regions in GovCloud and China; newer regions use a service principal, so it does not grow.

/// See the module; sorted.
const LOG_ACCOUNTS: [&str; 26] = [
    "009996457667", // eu-west-3
    "027434742980", // us-west-1
    "033677994240", // us-east-2
    "037604701340", // cn-northwest-1
    "048591011584", // us-gov-west-1
    "054676820928", // eu-central-1
    "076674570225", // me-south-1
    "098369216593", // af-south-1
    "114774131450", // ap-southeast-1
    "127311923021", // us-east-1
    "156460612806", // eu-west-1
    "190560391635", // us-gov-east-1
    "383597477331", // ap-northeast-3
    "507241528517", // sa-east-1
    "582318560864", // ap-northeast-1
    "589379963580", // ap-southeast-3
    "600734575887", // ap-northeast-2
    "635631232127", // eu-south-1
    "638102146993", // cn-north-1
    "652711504416", // eu-west-2
    "718504428378", // ap-south-1
    "754344448648", // ap-east-1
    "783225319266", // ap-southeast-2
    "797873946194", // us-west-2
    "897822967062", // eu-north-1
    "985666609251", // ca-central-1
];

/// Whether AWS writes access logs of load balancers from this account.
pub fn writes_load_balancer_logs(account: &str) -> bool {
    LOG_ACCOUNTS.binary_search(&account).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_holds_accounts() {
        assert!(LOG_ACCOUNTS.is_sorted());
        assert!(LOG_ACCOUNTS.iter().all(|id| super::super::is_account(id) && writes_load_balancer_logs(id)));
        assert!(!writes_load_balancer_logs("210987654321"));
    }
}
