// Package conformance runs the official conformance suite of the Gateway API against the mesh of a cluster, that of KUBECONFIG.
// tests/tests/conformance brings the cluster up and judges what is printed here.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// consecutive answers must be right before an expectation counts as met. The suite's own three are given by
// two pods of the wrong Service by chance, one time in eight.
const consecutive = 20

// beyondProfiles are what the mesh's tests ask for and no mesh profile has. Without them seven of the tests are skipped.
var beyondProfiles = []features.FeatureName{
	features.SupportHTTPRoute,
	features.SupportGRPCRoute,
	features.SupportHTTPRouteParentRefPort,
	features.SupportHTTPRouteResponseHeaderModification,
	features.SupportHTTPRoute303RedirectStatusCode,
	features.SupportHTTPRoute307RedirectStatusCode,
	features.SupportHTTPRoute308RedirectStatusCode,
}

func TestConformance(t *testing.T) {
	options := conformance.DefaultOptions(t)
	options.GatewayClassName = ""
	options.ConformanceProfiles = []suite.ConformanceProfileName{
		suite.MeshHTTPConformanceProfileName,
		suite.MeshGRPCConformanceProfileName,
	}
	options.SupportedFeatures = features.SetsToNamesSet(features.MeshCoreFeatures, features.MeshExtendedFeatures).UnsortedList()
	options.SupportedFeatures = append(options.SupportedFeatures, beyondProfiles...)
	options.NamespaceLabels = map[string]string{"weft.mesh/inject": "enabled"}
	options.TimeoutConfig.RequiredConsecutiveSuccesses = consecutive
	conformance.RunConformanceWithOptions(t, options)
}
