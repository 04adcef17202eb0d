//! `apparmor.img`: AppArmor policies to load before tasks are labelled. Section 22.3 of the format.

messages! {
    /// One AppArmor policy. Section 22.3.
    message AaPolicy = "aa_policy" {
        /// Name of the policy.
        required string name = 1;
        /// Binary policy as the kernel accepts it.
        required bytes blob = 2;
    }

    /// A namespace of AppArmor policies. Section 22.3.
    message AaNamespace = "aa_namespace" {
        /// Name of the namespace.
        required string name = 1;
        /// Policies of the namespace.
        repeated message AaPolicy policies = 2;
        /// Namespaces inside it.
        repeated message AaNamespace namespaces = 3;
    }

    /// `apparmor.img`: AppArmor policies to load before tasks are labelled. Section 22.3.
    message ApparmorEntry = "apparmor_entry" {
        /// Tree of policy namespaces.
        repeated message AaNamespace namespaces = 1;
    }
}
